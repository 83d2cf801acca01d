-- A deletion that waits for another job stays in the queue as its own job; what is lost is only why the last attempt failed.
DROP INDEX "containers_deletion";
DROP INDEX "containers_state";
ALTER TABLE "Containers" DROP COLUMN "changeError";
ALTER TABLE "Containers" DROP COLUMN "deletionError";
ALTER TABLE "Containers" DROP COLUMN "deletionRequestedBy";
ALTER TABLE "Containers" DROP COLUMN "deletionRequestedAt";
ALTER TABLE "Containers" DROP COLUMN "deletionJobId";
