-- Reverse proxies that pull /nginx.conf and report: the revision that is live there and since when, and the last one
-- that was refused, with the words of nginx.
CREATE TABLE `Proxies` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `name` varchar(64) COLLATE utf8mb4_bin NOT NULL,
  `revision` varchar(128),
  `liveSince` datetime(3),
  `refused` varchar(128),
  `reason` text,
  `reportedAt` datetime(3) NOT NULL,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL,
  UNIQUE KEY `proxies_name` (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
INSERT IGNORE INTO `Locks` (`name`) VALUES ('proxies');
