CREATE TABLE `ProxyRevisions` (
  `proxyId` int NOT NULL,
  `revision` bigint NOT NULL,
  `leftOut` varchar(255) COLLATE utf8mb4_bin NOT NULL DEFAULT '',
  `liveSince` datetime(3) NOT NULL,
  PRIMARY KEY (`proxyId`, `revision`, `leftOut`),
  CONSTRAINT `proxy_revisions_proxy` FOREIGN KEY (`proxyId`) REFERENCES `Proxies` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
DROP TABLE `ProxyServices`;
ALTER TABLE `Proxies` DROP COLUMN `taken`;
DELETE FROM `Revisions` WHERE `leftOut` <> '';
ALTER TABLE `Revisions` MODIFY `leftOut` varchar(255) NOT NULL DEFAULT '';
