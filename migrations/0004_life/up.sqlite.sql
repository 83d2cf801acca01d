-- protected: the container is not to be deleted.
ALTER TABLE "Containers" ADD COLUMN "protected" BOOLEAN NOT NULL DEFAULT FALSE;

-- What one user may have; a limit that is NULL is the configured one.
CREATE TABLE "Quotas" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "username" VARCHAR(255) NOT NULL,
  "containers" INTEGER DEFAULT NULL,
  "cores" INTEGER DEFAULT NULL,
  "memory" INTEGER DEFAULT NULL,
  "disk" INTEGER DEFAULT NULL,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  CONSTRAINT "quotas_username" UNIQUE ("username")
);

-- turn: pending jobs are taken in this order, so that nobody waits behind everything that somebody else asked for; 0 for rows that were
-- inserted by hand.
ALTER TABLE "Jobs" ADD COLUMN "turn" BIGINT NOT NULL DEFAULT 0;
DROP INDEX "jobs_pending";
CREATE INDEX "jobs_pending" ON "Jobs" ("turn", "id") WHERE "status" = 'pending';
