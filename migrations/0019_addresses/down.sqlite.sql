DROP TABLE "Leases";
DROP TABLE "OwnAddresses";
ALTER TABLE "Proxies" DROP COLUMN "address";
DROP INDEX "containers_refused_address";
ALTER TABLE "Containers" DROP COLUMN "addressRefusal";
ALTER TABLE "Containers" DROP COLUMN "refusedAddress";
