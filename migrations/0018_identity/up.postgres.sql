-- cluster: names a Proxmox VE cluster, once its node was asked; on a container it claims the VMID there. NULL claims nothing: the node was
-- never asked, or another row has the claim.
-- unverifiedSince: Proxmox VE could not be asked whether what was registered is true. identityMismatchAt: when it was proved that another
-- container stands under the VMID.
ALTER TABLE "Nodes" ADD COLUMN "cluster" VARCHAR(64) DEFAULT NULL;

ALTER TABLE "Containers"
  ADD COLUMN "cluster" VARCHAR(64) DEFAULT NULL,
  ADD COLUMN "unverifiedSince" TIMESTAMPTZ DEFAULT NULL,
  ADD COLUMN "identityMismatchAt" TIMESTAMPTZ DEFAULT NULL;
CREATE UNIQUE INDEX "containers_cluster_container_id" ON "Containers" ("cluster", "containerId");

ALTER TABLE "Quotas"
  ADD COLUMN "services" INTEGER DEFAULT NULL,
  ADD COLUMN "ports" INTEGER DEFAULT NULL;
