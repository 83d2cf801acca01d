-- Ports that the file with a tag leaves out, since another program has them on the machine of a proxy, and since when a proxy serves a
-- revision without them.
ALTER TABLE "Revisions" ADD COLUMN "leftOut" VARCHAR(255) NOT NULL DEFAULT '';
CREATE TABLE "ProxyRevisionsNew" (
  "proxyId" INTEGER NOT NULL REFERENCES "Proxies" ("id") ON DELETE CASCADE,
  "revision" INTEGER NOT NULL,
  "leftOut" VARCHAR(255) NOT NULL DEFAULT '',
  "liveSince" TEXT NOT NULL,
  PRIMARY KEY ("proxyId", "revision", "leftOut")
);
INSERT INTO "ProxyRevisionsNew" ("proxyId", "revision", "liveSince") SELECT "proxyId", "revision", "liveSince" FROM "ProxyRevisions";
DROP TABLE "ProxyRevisions";
ALTER TABLE "ProxyRevisionsNew" RENAME TO "ProxyRevisions";
