-- A deletion that waits for another job stays in the queue as its own job; what is lost is only why the last attempt failed.
ALTER TABLE `Containers`
  DROP KEY `containers_deletion`,
  DROP KEY `containers_state`,
  DROP COLUMN `changeError`,
  DROP COLUMN `deletionError`,
  DROP COLUMN `deletionRequestedBy`,
  DROP COLUMN `deletionRequestedAt`,
  DROP COLUMN `deletionJobId`;
