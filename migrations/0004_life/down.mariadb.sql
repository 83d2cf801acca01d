DROP TABLE `Quotas`;

ALTER TABLE `Containers` DROP COLUMN `protected`;
