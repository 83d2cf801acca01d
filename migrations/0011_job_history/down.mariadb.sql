DROP INDEX `jobs_container` ON `Jobs`;
