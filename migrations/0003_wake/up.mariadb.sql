-- retries: how often the job was put back after an error that was worth another try.
ALTER TABLE `Jobs`
  ADD COLUMN `retries` int NOT NULL DEFAULT 0;

-- Processes that want to be woken: channel is jobs or output, seenAt in epoch milliseconds of the database's clock.
CREATE TABLE `Listeners` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `channel` varchar(16) NOT NULL,
  `address` varchar(64) COLLATE utf8mb4_bin NOT NULL,
  `seenAt` bigint NOT NULL,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL,
  UNIQUE KEY `listeners_address` (`address`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
