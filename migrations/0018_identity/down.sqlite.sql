ALTER TABLE "Quotas" DROP COLUMN "ports";
ALTER TABLE "Quotas" DROP COLUMN "services";

DROP INDEX "containers_cluster_container_id";
ALTER TABLE "Containers" DROP COLUMN "identityMismatchAt";
ALTER TABLE "Containers" DROP COLUMN "unverifiedSince";
ALTER TABLE "Containers" DROP COLUMN "cluster";

ALTER TABLE "Nodes" DROP COLUMN "cluster";
