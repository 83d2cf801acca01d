DROP INDEX IF EXISTS `jobs_container` ON `Jobs`;
