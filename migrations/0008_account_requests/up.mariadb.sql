-- People who ask for an account. status: pending, declined, approved (the link was sent), done (the user exists);
-- linkHash: SHA-256 of the one-time link's secret.
CREATE TABLE `AccountRequests` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `name` varchar(100) NOT NULL,
  `email` varchar(254) NOT NULL,
  `username` varchar(64) COLLATE utf8mb4_bin NOT NULL,
  `reason` text NOT NULL,
  `status` varchar(16) NOT NULL DEFAULT 'pending',
  `decidedBy` varchar(255) COLLATE utf8mb4_bin DEFAULT NULL,
  `decidedAt` datetime(3) DEFAULT NULL,
  `answer` text,
  `linkHash` varchar(64) COLLATE utf8mb4_bin DEFAULT NULL,
  `linkExpires` datetime(3) DEFAULT NULL,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL,
  UNIQUE KEY `account_requests_link_hash` (`linkHash`),
  KEY `account_requests_status` (`status`, `id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
