-- What worked on a container, for its history.
CREATE INDEX `jobs_container` ON `Jobs` (`containerId`, `id`);
