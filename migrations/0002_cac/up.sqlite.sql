-- One column a statement: SQLite has no other way.
-- state: NULL once made, else creating, deleting or undoing; marker: the container carries our ownership marker;
-- memory in MiB, disk in GiB.
ALTER TABLE "Containers" ADD COLUMN "state" VARCHAR(16);
ALTER TABLE "Containers" ADD COLUMN "jobId" INTEGER;
ALTER TABLE "Containers" ADD COLUMN "marker" BOOLEAN;
ALTER TABLE "Containers" ADD COLUMN "template" VARCHAR(255);
ALTER TABLE "Containers" ADD COLUMN "cores" INTEGER;
ALTER TABLE "Containers" ADD COLUMN "memory" INTEGER;
ALTER TABLE "Containers" ADD COLUMN "disk" INTEGER;
ALTER TABLE "Containers" ADD COLUMN "sshPublicKey" TEXT;

-- kind: NULL is a shell command; leaseUntil and startAfter: epoch milliseconds of the database's clock.
ALTER TABLE "Jobs" ADD COLUMN "kind" VARCHAR(64);
ALTER TABLE "Jobs" ADD COLUMN "payload" TEXT;
ALTER TABLE "Jobs" ADD COLUMN "checkpoint" TEXT;
ALTER TABLE "Jobs" ADD COLUMN "containerId" INTEGER;
ALTER TABLE "Jobs" ADD COLUMN "reason" TEXT;
ALTER TABLE "Jobs" ADD COLUMN "fence" INTEGER NOT NULL DEFAULT 0;
ALTER TABLE "Jobs" ADD COLUMN "leaseUntil" BIGINT;
ALTER TABLE "Jobs" ADD COLUMN "runner" VARCHAR(64);
ALTER TABLE "Jobs" ADD COLUMN "cancelRequested" BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE "Jobs" ADD COLUMN "startAfter" BIGINT;
ALTER TABLE "Jobs" ADD COLUMN "attempts" INTEGER NOT NULL DEFAULT 0;
ALTER TABLE "Jobs" ADD COLUMN "startedAt" TEXT;
ALTER TABLE "Jobs" ADD COLUMN "finishedAt" TEXT;

ALTER TABLE "Nodes" ADD COLUMN "aiContainer" VARCHAR(50);
ALTER TABLE "Nodes" ADD COLUMN "tlsFingerprint" VARCHAR(95);
ALTER TABLE "Nodes" ADD COLUMN "enabled" BOOLEAN NOT NULL DEFAULT TRUE;
ALTER TABLE "Nodes" ADD COLUMN "storage" VARCHAR(255);
ALTER TABLE "Nodes" ADD COLUMN "bridge" VARCHAR(64);

ALTER TABLE "Sessions" ADD COLUMN "username" VARCHAR(255);
ALTER TABLE "Sessions" ADD COLUMN "admin" BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE "Sessions" ADD COLUMN "adminCheckedAt" TEXT;

CREATE INDEX "jobs_status_id" ON "Jobs" ("status", "id");
CREATE INDEX "sessions_username" ON "Sessions" ("username");
CREATE INDEX "sessions_expires" ON "Sessions" ("expires");

CREATE TABLE "Settings" (
  "name" VARCHAR(64) NOT NULL PRIMARY KEY,
  "value" TEXT NOT NULL,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL
);

-- A transaction that must be alone with something updates the row of that name.
CREATE TABLE "Locks" (
  "name" VARCHAR(64) NOT NULL PRIMARY KEY
);

INSERT INTO "Locks" ("name") VALUES ('names'), ('ports'), ('vmids'), ('settings');

CREATE TABLE "IdempotencyKeys" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "username" VARCHAR(255) NOT NULL,
  "idempotencyKey" VARCHAR(255) NOT NULL,
  "requestHash" VARCHAR(64) NOT NULL,
  "containerId" INTEGER,
  "jobId" INTEGER,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  CONSTRAINT "idempotency_keys_username_key" UNIQUE ("username", "idempotencyKey")
);

-- name: a user's name or an address.
CREATE TABLE "LoginFailures" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "name" VARCHAR(255) NOT NULL,
  "failures" INTEGER NOT NULL DEFAULT 0,
  "lastAt" TEXT,
  CONSTRAINT "login_failures_name" UNIQUE ("name")
);
