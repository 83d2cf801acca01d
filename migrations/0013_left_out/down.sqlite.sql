CREATE TABLE "ProxyRevisionsOld" (
  "proxyId" INTEGER NOT NULL REFERENCES "Proxies" ("id") ON DELETE CASCADE,
  "revision" INTEGER NOT NULL,
  "liveSince" TEXT NOT NULL,
  PRIMARY KEY ("proxyId", "revision")
);
INSERT INTO "ProxyRevisionsOld" SELECT "proxyId", "revision", MIN("liveSince") FROM "ProxyRevisions" GROUP BY "proxyId", "revision";
DROP TABLE "ProxyRevisions";
ALTER TABLE "ProxyRevisionsOld" RENAME TO "ProxyRevisions";
ALTER TABLE "Revisions" DROP COLUMN "leftOut";
