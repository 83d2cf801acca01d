DROP INDEX "jobs_pending";
CREATE INDEX "jobs_pending" ON "Jobs" ("id") WHERE "status" = 'pending';
ALTER TABLE "Jobs" DROP COLUMN "turn";

DROP TABLE "Quotas";

ALTER TABLE "Containers" DROP COLUMN "protected";
