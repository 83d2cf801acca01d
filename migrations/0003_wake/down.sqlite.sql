DROP TABLE "Listeners";

ALTER TABLE "Jobs" DROP COLUMN "retries";
