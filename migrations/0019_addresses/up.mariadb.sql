-- refusedAddress: what Proxmox VE shows on a container that does not get it, addressRefusal: why; both NULL where nothing is refused.
-- Proxies.address: where a proxy's last report came from. OwnAddresses: what belongs to the installation itself, as each of its processes
-- finds it, so that no other one publishes it; seenAt in epoch milliseconds of the database's clock. Leases: work of one process at a time,
-- until in the same clock; counter grows with each renewal.
ALTER TABLE `Containers` ADD COLUMN `refusedAddress` varchar(45) COLLATE utf8mb4_bin;
ALTER TABLE `Containers` ADD COLUMN `addressRefusal` varchar(16) COLLATE utf8mb4_bin;
CREATE INDEX `containers_refused_address` ON `Containers` (`refusedAddress`);
ALTER TABLE `Proxies` ADD COLUMN `address` varchar(45);
CREATE TABLE `OwnAddresses` (
  `id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `kind` varchar(16) COLLATE utf8mb4_bin NOT NULL,
  `address` varchar(45) COLLATE utf8mb4_bin NOT NULL,
  `port` int NOT NULL,
  `seenAt` bigint NOT NULL,
  `createdAt` datetime(3) NOT NULL,
  `updatedAt` datetime(3) NOT NULL,
  UNIQUE KEY `own_addresses_unique` (`kind`, `address`, `port`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE `Leases` (
  `name` varchar(32) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
  `holder` varchar(64) COLLATE utf8mb4_bin NOT NULL,
  `until` bigint NOT NULL,
  `counter` bigint NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
INSERT IGNORE INTO `Leases` (`name`, `holder`, `until`, `counter`) VALUES ('addresses', '', 0, 0);
