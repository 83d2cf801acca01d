-- Sessions.provedAt: when the password (and the second factor) was last given; NULL for sessions of before.
-- Tokens.expiryMailedAt: when the owner was mailed that the token expires soon.
-- Proxies.tokenExpires: when the token expires that the proxy reports with.
-- AccountRequests.address and network: where the request came from, for limits; confirmedAt: when the person followed the link that was
-- mailed to the address. A further status, unconfirmed: the link was not followed yet, and linkHash is that link's.
ALTER TABLE `Sessions` ADD COLUMN `provedAt` datetime(3) DEFAULT NULL;
ALTER TABLE `Tokens` ADD COLUMN `expiryMailedAt` datetime(3) DEFAULT NULL;
ALTER TABLE `Proxies` ADD COLUMN `tokenExpires` datetime(3) DEFAULT NULL;
ALTER TABLE `AccountRequests` ADD COLUMN `address` varchar(64) COLLATE utf8mb4_bin DEFAULT NULL;
ALTER TABLE `AccountRequests` ADD COLUMN `network` varchar(64) COLLATE utf8mb4_bin DEFAULT NULL;
ALTER TABLE `AccountRequests` ADD COLUMN `confirmedAt` datetime(3) DEFAULT NULL;
CREATE INDEX `account_requests_network` ON `AccountRequests` (`network`, `createdAt`);
INSERT IGNORE INTO `Locks` (`name`) VALUES ('account_requests');
