-- cluster: names a Proxmox VE cluster, once its node was asked; on a container it claims the VMID there. NULL claims nothing: the node was
-- never asked, or another row has the claim.
-- unverifiedSince: Proxmox VE could not be asked whether what was registered is true. identityMismatchAt: when it was proved that another
-- container stands under the VMID.
ALTER TABLE `Nodes` ADD COLUMN `cluster` varchar(64) COLLATE utf8mb4_bin DEFAULT NULL;

ALTER TABLE `Containers`
  ADD COLUMN `cluster` varchar(64) COLLATE utf8mb4_bin DEFAULT NULL,
  ADD COLUMN `unverifiedSince` datetime(3) DEFAULT NULL,
  ADD COLUMN `identityMismatchAt` datetime(3) DEFAULT NULL,
  ADD UNIQUE KEY `containers_cluster_container_id` (`cluster`, `containerId`);

ALTER TABLE `Quotas`
  ADD COLUMN `services` int DEFAULT NULL,
  ADD COLUMN `ports` int DEFAULT NULL;
