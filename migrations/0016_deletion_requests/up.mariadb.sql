-- A deletion that was requested and has not happened yet: by which job, since when, by whom, and why the last attempt failed (then no job
-- works on it any more). changeError: what Proxmox VE did not apply of the last change.
-- The indexes are for the look at containers whose job has finished without giving them up.
ALTER TABLE `Containers`
  ADD COLUMN `deletionJobId` int DEFAULT NULL,
  ADD COLUMN `deletionRequestedAt` datetime(3) DEFAULT NULL,
  ADD COLUMN `deletionRequestedBy` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  ADD COLUMN `deletionError` text DEFAULT NULL,
  ADD COLUMN `changeError` text DEFAULT NULL,
  ADD KEY `containers_state` (`state`),
  ADD KEY `containers_deletion` (`deletionJobId`);
