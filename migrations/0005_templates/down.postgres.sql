ALTER TABLE "Containers" DROP CONSTRAINT "containers_lane";
ALTER TABLE "Containers" DROP COLUMN "lane";

ALTER TABLE "Nodes" DROP COLUMN "templates";
