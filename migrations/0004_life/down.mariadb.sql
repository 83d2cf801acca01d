ALTER TABLE `Jobs`
  ADD KEY `jobs_status_id` (`status`, `id`),
  DROP KEY `jobs_turn`,
  DROP COLUMN `turn`;

DROP TABLE `Quotas`;

ALTER TABLE `Containers` DROP COLUMN `protected`;
