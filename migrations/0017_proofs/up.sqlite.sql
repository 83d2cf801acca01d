-- Sessions.provedAt: when the password (and the second factor) was last given; NULL for sessions of before.
-- Tokens.expiryMailedAt: when the owner was mailed that the token expires soon.
-- Proxies.tokenExpires: when the token expires that the proxy reports with.
-- AccountRequests.address and network: where the request came from, for limits; confirmedAt: when the person followed the link that was
-- mailed to the address. A further status, unconfirmed: the link was not followed yet, and linkHash is that link's.
ALTER TABLE "Sessions" ADD COLUMN "provedAt" TEXT;
ALTER TABLE "Tokens" ADD COLUMN "expiryMailedAt" TEXT;
ALTER TABLE "Proxies" ADD COLUMN "tokenExpires" TEXT;
ALTER TABLE "AccountRequests" ADD COLUMN "address" VARCHAR(64);
ALTER TABLE "AccountRequests" ADD COLUMN "network" VARCHAR(64);
ALTER TABLE "AccountRequests" ADD COLUMN "confirmedAt" TEXT;
CREATE INDEX "account_requests_network" ON "AccountRequests" ("network", "createdAt");
INSERT INTO "Locks" ("name") VALUES ('account_requests');
