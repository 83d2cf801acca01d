ALTER TABLE `Containers`
  DROP KEY `containers_lane`,
  DROP COLUMN `lane`;

ALTER TABLE `Nodes` DROP COLUMN `templates`;
