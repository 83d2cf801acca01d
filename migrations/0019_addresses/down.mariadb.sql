DROP TABLE `Leases`;
DROP TABLE `OwnAddresses`;
ALTER TABLE `Proxies` DROP COLUMN `address`;
DROP INDEX `containers_refused_address` ON `Containers`;
ALTER TABLE `Containers` DROP COLUMN `addressRefusal`;
ALTER TABLE `Containers` DROP COLUMN `refusedAddress`;
