DELETE `later` FROM `ProxyRevisions` `later` JOIN `ProxyRevisions` `first` ON `first`.`proxyId` = `later`.`proxyId`
  AND `first`.`revision` = `later`.`revision` AND (`first`.`liveSince`, `first`.`leftOut`) < (`later`.`liveSince`, `later`.`leftOut`);
ALTER TABLE `ProxyRevisions` DROP PRIMARY KEY, ADD PRIMARY KEY (`proxyId`, `revision`), DROP COLUMN `leftOut`;
ALTER TABLE `Revisions` DROP COLUMN `leftOut`;
