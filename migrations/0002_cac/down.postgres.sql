-- The indexes on dropped columns go with them.
DROP TABLE "LoginFailures";
DROP TABLE "IdempotencyKeys";
DROP TABLE "Locks";
DROP TABLE "Settings";

ALTER TABLE "Containers"
  DROP COLUMN "sshPublicKey",
  DROP COLUMN "disk",
  DROP COLUMN "memory",
  DROP COLUMN "cores",
  DROP COLUMN "template",
  DROP COLUMN "marker",
  DROP COLUMN "jobId",
  DROP COLUMN "state";

ALTER TABLE "Jobs"
  DROP COLUMN "finishedAt",
  DROP COLUMN "startedAt",
  DROP COLUMN "attempts",
  DROP COLUMN "startAfter",
  DROP COLUMN "cancelRequested",
  DROP COLUMN "runner",
  DROP COLUMN "leaseUntil",
  DROP COLUMN "fence",
  DROP COLUMN "reason",
  DROP COLUMN "containerId",
  DROP COLUMN "checkpoint",
  DROP COLUMN "payload",
  DROP COLUMN "kind";

ALTER TABLE "Nodes"
  DROP COLUMN "bridge",
  DROP COLUMN "storage",
  DROP COLUMN "enabled",
  DROP COLUMN "tlsFingerprint",
  DROP COLUMN "aiContainer";

ALTER TABLE "Sessions"
  DROP COLUMN "adminCheckedAt",
  DROP COLUMN "admin",
  DROP COLUMN "username";

DROP INDEX "jobs_status_id";
DROP INDEX "sessions_expires";
