-- Who did what to what, from where, with which result. Rows are only ever added.
CREATE TABLE `AuditEntries` (
  `id` bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `username` varchar(255) COLLATE utf8mb4_bin DEFAULT NULL,
  `via` varchar(16) NOT NULL,
  `tokenId` int DEFAULT NULL,
  `address` varchar(45) DEFAULT NULL,
  `action` varchar(64) NOT NULL,
  `target` varchar(255) NOT NULL,
  `status` int NOT NULL,
  `detail` text,
  `requestId` varchar(32) DEFAULT NULL,
  `createdAt` datetime(3) NOT NULL,
  KEY `audit_entries_username` (`username`, `id`),
  KEY `audit_entries_created_at` (`createdAt`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
