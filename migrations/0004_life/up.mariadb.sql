-- protected: the container is not to be deleted.
ALTER TABLE `Containers` ADD COLUMN `protected` boolean NOT NULL DEFAULT FALSE;

-- What one user may have; a limit that is NULL is the configured one.
CREATE TABLE `Quotas` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `username` varchar(255) COLLATE utf8mb4_bin NOT NULL,
  `containers` int DEFAULT NULL,
  `cores` int DEFAULT NULL,
  `memory` int DEFAULT NULL,
  `disk` int DEFAULT NULL,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL,
  UNIQUE KEY `quotas_username` (`username`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- turn: pending jobs are taken in this order, so that nobody waits behind everything that somebody else asked for; 0 for rows that were
-- inserted by hand.
ALTER TABLE `Jobs`
  ADD COLUMN `turn` bigint NOT NULL DEFAULT 0,
  ADD KEY `jobs_turn` (`status`, `turn`, `id`),
  DROP KEY `jobs_status_id`;
