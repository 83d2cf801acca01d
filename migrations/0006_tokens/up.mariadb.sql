-- hash: SHA-256 of the token, which itself is shown once; beginning: its first characters, to tell tokens apart;
-- admin and adminCheckedAt: of the owner, looked up as for sessions; suspended: the owner may not sign in any more.
CREATE TABLE `Tokens` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `username` varchar(255) COLLATE utf8mb4_bin NOT NULL,
  `name` varchar(64) NOT NULL,
  `hash` varchar(64) COLLATE utf8mb4_bin NOT NULL,
  `beginning` varchar(16) NOT NULL,
  `scopes` varchar(255) NOT NULL,
  `expires` datetime(3) DEFAULT NULL,
  `lastUsedAt` datetime(3) DEFAULT NULL,
  `admin` boolean NOT NULL DEFAULT FALSE,
  `adminCheckedAt` datetime(3) NOT NULL,
  `suspended` boolean NOT NULL DEFAULT FALSE,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL,
  UNIQUE KEY `tokens_hash` (`hash`),
  KEY `tokens_username` (`username`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

-- For counting failed logins.
INSERT IGNORE INTO `Locks` (`name`) VALUES ('logins');
