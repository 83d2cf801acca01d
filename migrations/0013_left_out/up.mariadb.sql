-- Ports that the file with a tag leaves out, since another program has them on the machine of a proxy, and since when a proxy serves a
-- revision without them.
ALTER TABLE `Revisions` ADD COLUMN `leftOut` varchar(255) NOT NULL DEFAULT '';
ALTER TABLE `ProxyRevisions` ADD COLUMN `leftOut` varchar(255) COLLATE utf8mb4_bin NOT NULL DEFAULT '', DROP PRIMARY KEY,
  ADD PRIMARY KEY (`proxyId`, `revision`, `leftOut`);
