-- Where a user has signed in from. kind: device (value: keyed hash of the secret in the device's cookie) or network (value: an address,
-- with IPv6 a /64); lastAt: the newest successful sign-in from there.
CREATE TABLE `SignInOrigins` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `username` varchar(255) COLLATE utf8mb4_bin NOT NULL,
  `kind` varchar(16) NOT NULL,
  `value` varchar(64) COLLATE utf8mb4_bin NOT NULL,
  `createdAt` datetime(3) NOT NULL,
  `lastAt` datetime(3) NOT NULL,
  UNIQUE KEY `sign_in_origins_username_kind_value` (`username`, `kind`, `value`),
  KEY `sign_in_origins_value` (`value`),
  KEY `sign_in_origins_last_at` (`lastAt`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- What Proxmox VE says of the users that own something. state: unknown, active, disabled, missing (since missingSince), or returned (the
-- name was missing and exists again); checkedAt: the last definite answer; triedAt: the last question.
CREATE TABLE `UserStates` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `username` varchar(255) COLLATE utf8mb4_bin NOT NULL,
  `state` varchar(16) NOT NULL DEFAULT 'unknown',
  `missingSince` datetime(3) DEFAULT NULL,
  `checkedAt` datetime(3) DEFAULT NULL,
  `triedAt` datetime(3) DEFAULT NULL,
  UNIQUE KEY `user_states_username` (`username`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- Users who own nothing but finished jobs are found here from now on; counting through all jobs each time would be slow.
INSERT IGNORE INTO `UserStates` (`username`) SELECT DISTINCT `createdBy` FROM `Jobs` WHERE `createdBy` IS NOT NULL AND `createdBy` <> '';
