-- refusedAddress: what Proxmox VE shows on a container that does not get it, addressRefusal: why; both NULL where nothing is refused.
-- Proxies.address: where a proxy's last report came from. OwnAddresses: what belongs to the installation itself, as each of its processes
-- finds it, so that no other one publishes it; seenAt in epoch milliseconds of the database's clock. Leases: work of one process at a time,
-- until in the same clock; counter grows with each renewal.
ALTER TABLE "Containers" ADD COLUMN "refusedAddress" VARCHAR(45);
ALTER TABLE "Containers" ADD COLUMN "addressRefusal" VARCHAR(16);
CREATE INDEX "containers_refused_address" ON "Containers" ("refusedAddress");
ALTER TABLE "Proxies" ADD COLUMN "address" VARCHAR(45);
CREATE TABLE "OwnAddresses" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "kind" VARCHAR(16) NOT NULL,
  "address" VARCHAR(45) NOT NULL,
  "port" INTEGER NOT NULL,
  "seenAt" BIGINT NOT NULL,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  CONSTRAINT "own_addresses_unique" UNIQUE ("kind", "address", "port")
);
CREATE TABLE "Leases" (
  "name" VARCHAR(32) NOT NULL PRIMARY KEY,
  "holder" VARCHAR(64) NOT NULL,
  "until" BIGINT NOT NULL,
  "counter" BIGINT NOT NULL
);
INSERT INTO "Leases" ("name", "holder", "until", "counter") VALUES ('addresses', '', 0, 0);
