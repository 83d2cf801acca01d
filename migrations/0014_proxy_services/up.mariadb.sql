-- Since when each proxy serves which service in the form of which revision, and the ports that other programs have on its machine.
-- What was known before is told again with the next report.
ALTER TABLE `Proxies` ADD COLUMN `taken` text NOT NULL DEFAULT '';
CREATE TABLE `ProxyServices` (
  `proxyId` int NOT NULL,
  `serviceId` int NOT NULL,
  `revision` bigint NOT NULL,
  `liveSince` datetime(3) NOT NULL,
  PRIMARY KEY (`proxyId`, `serviceId`),
  CONSTRAINT `proxy_services_proxy` FOREIGN KEY (`proxyId`) REFERENCES `Proxies` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE INDEX `proxy_services_service` ON `ProxyServices` (`serviceId`);
DROP TABLE `ProxyRevisions`;
DELETE FROM `Revisions` WHERE `leftOut` <> '';
ALTER TABLE `Revisions` MODIFY `leftOut` text NOT NULL;
