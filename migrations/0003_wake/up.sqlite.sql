-- retries: how often the job was put back after an error that was worth another try.
ALTER TABLE "Jobs" ADD COLUMN "retries" INTEGER NOT NULL DEFAULT 0;

-- Processes that want to be woken: channel is jobs or output, seenAt in epoch milliseconds of the database's clock.
CREATE TABLE "Listeners" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "channel" VARCHAR(16) NOT NULL,
  "address" VARCHAR(64) NOT NULL,
  "seenAt" BIGINT NOT NULL,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  CONSTRAINT "listeners_address" UNIQUE ("address")
);

-- What may be claimed and what is held, without walking over all that has ended.
CREATE INDEX "jobs_pending" ON "Jobs" ("id") WHERE "status" = 'pending';
CREATE INDEX "jobs_running" ON "Jobs" ("id") WHERE "status" = 'running';
DROP INDEX "jobs_status_id";
