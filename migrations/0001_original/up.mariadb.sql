-- The original's tables as its own migrations leave them, doubled foreign key included, so that a fresh database and
-- an adopted one are the same.
CREATE TABLE `Nodes` (
  `id` int NOT NULL AUTO_INCREMENT,
  `name` varchar(255) NOT NULL,
  `apiUrl` varchar(255) DEFAULT NULL,
  `tokenId` varchar(255) DEFAULT NULL,
  `secret` varchar(255) DEFAULT NULL,
  `tlsVerify` tinyint(1) DEFAULT NULL,
  `createdAt` datetime NOT NULL,
  `updatedAt` datetime NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `name` (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `Containers` (
  `id` int NOT NULL AUTO_INCREMENT,
  `hostname` varchar(255) NOT NULL,
  `username` varchar(255) NOT NULL,
  `osRelease` varchar(255) DEFAULT NULL,
  `containerId` int unsigned NOT NULL,
  `macAddress` varchar(17) NOT NULL,
  `ipv4Address` varchar(45) NOT NULL,
  `aiContainer` varchar(50) NOT NULL DEFAULT 'N',
  `createdAt` datetime NOT NULL,
  `updatedAt` datetime NOT NULL,
  `nodeId` int DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `hostname` (`hostname`),
  UNIQUE KEY `macAddress` (`macAddress`),
  UNIQUE KEY `ipv4Address` (`ipv4Address`),
  UNIQUE KEY `containers_node_id_container_id_unique` (`nodeId`,`containerId`),
  CONSTRAINT `Containers_ibfk_1` FOREIGN KEY (`nodeId`) REFERENCES `Nodes` (`id`) ON UPDATE CASCADE,
  CONSTRAINT `Containers_nodeId_foreign_idx` FOREIGN KEY (`nodeId`) REFERENCES `Nodes` (`id`) ON UPDATE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `Services` (
  `id` int NOT NULL AUTO_INCREMENT,
  `containerId` int NOT NULL,
  `type` enum('tcp','udp','http') NOT NULL,
  `internalPort` int unsigned NOT NULL,
  `externalPort` int unsigned DEFAULT NULL,
  `tls` tinyint(1) DEFAULT NULL,
  `externalHostname` varchar(255) DEFAULT NULL,
  `createdAt` datetime NOT NULL,
  `updatedAt` datetime NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `services_http_unique_hostname` (`externalHostname`),
  UNIQUE KEY `services_layer4_unique_port` (`type`,`externalPort`),
  KEY `containerId` (`containerId`),
  CONSTRAINT `Services_ibfk_1` FOREIGN KEY (`containerId`) REFERENCES `Containers` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `Sessions` (
  `session_id` varchar(32) NOT NULL,
  `expires` datetime DEFAULT NULL,
  `data` text DEFAULT NULL,
  `createdAt` datetime NOT NULL,
  `updatedAt` datetime NOT NULL,
  PRIMARY KEY (`session_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `Jobs` (
  `id` int NOT NULL AUTO_INCREMENT,
  `command` varchar(2000) NOT NULL,
  `status` enum('pending','running','success','failure','cancelled') NOT NULL DEFAULT 'pending',
  `createdAt` datetime NOT NULL,
  `updatedAt` datetime NOT NULL,
  `createdBy` varchar(255) DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `jobs_created_by` (`createdBy`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `JobStatuses` (
  `id` int NOT NULL AUTO_INCREMENT,
  `jobId` int NOT NULL,
  `output` text DEFAULT NULL,
  `createdAt` datetime NOT NULL,
  `updatedAt` datetime NOT NULL,
  PRIMARY KEY (`id`),
  KEY `jobId` (`jobId`),
  CONSTRAINT `JobStatuses_ibfk_1` FOREIGN KEY (`jobId`) REFERENCES `Jobs` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
