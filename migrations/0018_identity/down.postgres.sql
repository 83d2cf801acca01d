ALTER TABLE "Quotas"
  DROP COLUMN "ports",
  DROP COLUMN "services";

DROP INDEX "containers_cluster_container_id";
ALTER TABLE "Containers"
  DROP COLUMN "identityMismatchAt",
  DROP COLUMN "unverifiedSince",
  DROP COLUMN "cluster";

ALTER TABLE "Nodes" DROP COLUMN "cluster";
