ALTER TABLE `Quotas`
  DROP COLUMN `ports`,
  DROP COLUMN `services`;

ALTER TABLE `Containers`
  DROP KEY `containers_cluster_container_id`,
  DROP COLUMN `identityMismatchAt`,
  DROP COLUMN `unverifiedSince`,
  DROP COLUMN `cluster`;

ALTER TABLE `Nodes` DROP COLUMN `cluster`;
