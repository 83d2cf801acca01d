-- What worked on a container, for its history.
CREATE INDEX IF NOT EXISTS `jobs_container` ON `Jobs` (`containerId`, `id`);
