-- Reverse proxies that pull /nginx.conf and report: the revision that is live there and since when, and the last one
-- that was refused, with the words of nginx.
CREATE TABLE "Proxies" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "name" VARCHAR(64) NOT NULL,
  "revision" VARCHAR(128),
  "liveSince" TEXT,
  "refused" VARCHAR(128),
  "reason" TEXT,
  "reportedAt" TEXT NOT NULL,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  CONSTRAINT "proxies_name" UNIQUE ("name")
);
INSERT INTO "Locks" ("name") VALUES ('proxies');
