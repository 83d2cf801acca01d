DROP INDEX "jobs_container";
