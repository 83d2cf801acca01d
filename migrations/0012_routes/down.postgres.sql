DELETE FROM "Locks" WHERE "name" = 'routes';
DROP TABLE "ProxyRevisions";
DROP TABLE "Revisions";
DROP TABLE "Routes";
ALTER TABLE "Services" DROP COLUMN "timeout";
ALTER TABLE "Services" DROP COLUMN "maxBody";
ALTER TABLE "Services" DROP COLUMN "https";
