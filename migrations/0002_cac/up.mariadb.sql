-- Each ALTER holds all that one table needs: InnoDB does it wholly or not at all.
-- User names, session ids and new keys compare byte by byte. JobStatuses needs no index on (jobId, id), since InnoDB's
-- secondary indexes end in the primary key.
-- state: NULL once made, else creating, deleting or undoing; marker: the container carries our ownership marker;
-- memory in MiB, disk in GiB.
ALTER TABLE `Containers`
  MODIFY COLUMN `username` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  MODIFY COLUMN `containerId` int unsigned DEFAULT NULL,
  MODIFY COLUMN `macAddress` varchar(17) DEFAULT NULL,
  MODIFY COLUMN `ipv4Address` varchar(45) DEFAULT NULL,
  MODIFY COLUMN `createdAt` datetime(3) NOT NULL,
  MODIFY COLUMN `updatedAt` datetime(3) NOT NULL,
  ADD COLUMN `state` varchar(16) DEFAULT NULL,
  ADD COLUMN `jobId` int DEFAULT NULL,
  ADD COLUMN `marker` tinyint(1) DEFAULT NULL,
  ADD COLUMN `template` varchar(255) DEFAULT NULL,
  ADD COLUMN `cores` int DEFAULT NULL,
  ADD COLUMN `memory` int DEFAULT NULL,
  ADD COLUMN `disk` int DEFAULT NULL,
  ADD COLUMN `sshPublicKey` text DEFAULT NULL;

-- kind: NULL is a shell command; leaseUntil and startAfter: epoch milliseconds of the database's clock.
ALTER TABLE `Jobs`
  MODIFY COLUMN `createdBy` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  MODIFY COLUMN `createdAt` datetime(3) NOT NULL,
  MODIFY COLUMN `updatedAt` datetime(3) NOT NULL,
  ADD COLUMN `kind` varchar(64) DEFAULT NULL,
  ADD COLUMN `payload` text DEFAULT NULL,
  ADD COLUMN `checkpoint` text DEFAULT NULL,
  ADD COLUMN `containerId` int DEFAULT NULL,
  ADD COLUMN `reason` text DEFAULT NULL,
  ADD COLUMN `fence` int NOT NULL DEFAULT 0,
  ADD COLUMN `leaseUntil` bigint DEFAULT NULL,
  ADD COLUMN `runner` varchar(64) DEFAULT NULL,
  ADD COLUMN `cancelRequested` tinyint(1) NOT NULL DEFAULT 0,
  ADD COLUMN `startAfter` bigint DEFAULT NULL,
  ADD COLUMN `attempts` int NOT NULL DEFAULT 0,
  ADD COLUMN `startedAt` datetime(3) DEFAULT NULL,
  ADD COLUMN `finishedAt` datetime(3) DEFAULT NULL,
  ADD KEY `jobs_status_id` (`status`, `id`);

ALTER TABLE `Nodes`
  MODIFY COLUMN `createdAt` datetime(3) NOT NULL,
  MODIFY COLUMN `updatedAt` datetime(3) NOT NULL,
  ADD COLUMN `aiContainer` varchar(50) DEFAULT NULL,
  ADD COLUMN `tlsFingerprint` varchar(95) DEFAULT NULL,
  ADD COLUMN `enabled` tinyint(1) NOT NULL DEFAULT 1,
  ADD COLUMN `storage` varchar(255) DEFAULT NULL,
  ADD COLUMN `bridge` varchar(64) DEFAULT NULL;

ALTER TABLE `Sessions`
  MODIFY COLUMN `session_id` varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  MODIFY COLUMN `expires` datetime(3) DEFAULT NULL,
  MODIFY COLUMN `createdAt` datetime(3) NOT NULL,
  MODIFY COLUMN `updatedAt` datetime(3) NOT NULL,
  ADD COLUMN `username` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  ADD COLUMN `admin` tinyint(1) NOT NULL DEFAULT 0,
  ADD COLUMN `adminCheckedAt` datetime(3) DEFAULT NULL,
  ADD KEY `sessions_username` (`username`),
  ADD KEY `sessions_expires` (`expires`);

ALTER TABLE `Services`
  MODIFY COLUMN `createdAt` datetime(3) NOT NULL,
  MODIFY COLUMN `updatedAt` datetime(3) NOT NULL;

ALTER TABLE `JobStatuses`
  MODIFY COLUMN `createdAt` datetime(3) NOT NULL,
  MODIFY COLUMN `updatedAt` datetime(3) NOT NULL;

CREATE TABLE `Settings` (
  `name` varchar(64) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
  `value` text NOT NULL,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- A transaction that must be alone with something updates the row of that name.
CREATE TABLE `Locks` (
  `name` varchar(64) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- IGNORE: this may run again after a kill.
INSERT IGNORE INTO `Locks` (`name`) VALUES ('names'), ('ports'), ('vmids'), ('settings');

CREATE TABLE `IdempotencyKeys` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `username` varchar(255) COLLATE utf8mb4_bin NOT NULL,
  `idempotencyKey` varchar(255) COLLATE utf8mb4_bin NOT NULL,
  `requestHash` varchar(64) NOT NULL,
  `containerId` int,
  `jobId` int,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL,
  UNIQUE KEY `idempotency_keys_username_key` (`username`, `idempotencyKey`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- name: a user's name or an address.
CREATE TABLE `LoginFailures` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `name` varchar(255) COLLATE utf8mb4_bin NOT NULL,
  `failures` int NOT NULL DEFAULT 0,
  `lastAt` datetime(3),
  UNIQUE KEY `login_failures_name` (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
