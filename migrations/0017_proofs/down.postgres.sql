-- An earlier release knows no unconfirmed requests: an admin decides about them.
UPDATE "AccountRequests" SET "status" = 'pending', "linkHash" = NULL, "linkExpires" = NULL WHERE "status" = 'unconfirmed';
DELETE FROM "Locks" WHERE "name" = 'account_requests';
DROP INDEX "account_requests_network";
ALTER TABLE "AccountRequests" DROP COLUMN "confirmedAt";
ALTER TABLE "AccountRequests" DROP COLUMN "network";
ALTER TABLE "AccountRequests" DROP COLUMN "address";
ALTER TABLE "Proxies" DROP COLUMN "tokenExpires";
ALTER TABLE "Tokens" DROP COLUMN "expiryMailedAt";
ALTER TABLE "Sessions" DROP COLUMN "provedAt";
