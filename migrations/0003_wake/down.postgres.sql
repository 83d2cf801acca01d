CREATE INDEX "jobs_status_id" ON "Jobs" ("status", "id");
DROP INDEX "jobs_pending";
DROP INDEX "jobs_running";

DROP TABLE "Listeners";

ALTER TABLE "Jobs" DROP COLUMN "retries";
