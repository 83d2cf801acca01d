CREATE TABLE "ProxyRevisions" (
  "proxyId" INTEGER NOT NULL REFERENCES "Proxies" ("id") ON DELETE CASCADE,
  "revision" BIGINT NOT NULL,
  "leftOut" VARCHAR(255) NOT NULL DEFAULT '',
  "liveSince" TIMESTAMPTZ NOT NULL,
  PRIMARY KEY ("proxyId", "revision", "leftOut")
);
DROP TABLE "ProxyServices";
ALTER TABLE "Proxies" DROP COLUMN "taken";
DELETE FROM "Revisions" WHERE "leftOut" <> '';
ALTER TABLE "Revisions" ALTER COLUMN "leftOut" TYPE VARCHAR(255);
