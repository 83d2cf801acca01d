-- What a service may have of its own behind the proxy, and what the proxies serve of it: the last good form of each,
-- which revision it is part of since when, and since when each proxy is at a revision. A form outlives its service: that it is gone
-- is a change, too.
ALTER TABLE `Services` ADD COLUMN `https` tinyint(1) NOT NULL DEFAULT 0;
ALTER TABLE `Services` ADD COLUMN `maxBody` int;
ALTER TABLE `Services` ADD COLUMN `timeout` int;
CREATE TABLE `Routes` (
  `serviceId` int NOT NULL PRIMARY KEY,
  `form` text NOT NULL,
  `revision` bigint NOT NULL,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE `Revisions` (
  `etag` varchar(128) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
  `revision` bigint NOT NULL,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE `ProxyRevisions` (
  `proxyId` int NOT NULL,
  `revision` bigint NOT NULL,
  `liveSince` datetime(3) NOT NULL,
  PRIMARY KEY (`proxyId`, `revision`),
  CONSTRAINT `proxy_revisions_proxy` FOREIGN KEY (`proxyId`) REFERENCES `Proxies` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
INSERT IGNORE INTO `Locks` (`name`) VALUES ('routes');
