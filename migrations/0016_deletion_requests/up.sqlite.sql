-- A deletion that was requested and has not happened yet: by which job, since when, by whom, and why the last attempt failed (then no job
-- works on it any more). changeError: what Proxmox VE did not apply of the last change.
-- The indexes are for the look at containers whose job has finished without giving them up.
ALTER TABLE "Containers" ADD COLUMN "deletionJobId" INTEGER;
ALTER TABLE "Containers" ADD COLUMN "deletionRequestedAt" TEXT;
ALTER TABLE "Containers" ADD COLUMN "deletionRequestedBy" VARCHAR(255);
ALTER TABLE "Containers" ADD COLUMN "deletionError" TEXT;
ALTER TABLE "Containers" ADD COLUMN "changeError" TEXT;
CREATE INDEX "containers_state" ON "Containers" ("state");
CREATE INDEX "containers_deletion" ON "Containers" ("deletionJobId");
