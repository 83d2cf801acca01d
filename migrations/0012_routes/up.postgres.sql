-- What a service may have of its own behind the proxy, and what the proxies serve of it: the last good form of each,
-- which revision it is part of since when, and since when each proxy is at a revision. A form outlives its service: that it is gone
-- is a change, too.
ALTER TABLE "Services" ADD COLUMN "https" BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE "Services" ADD COLUMN "maxBody" INTEGER;
ALTER TABLE "Services" ADD COLUMN "timeout" INTEGER;
CREATE TABLE "Routes" (
  "serviceId" INTEGER NOT NULL PRIMARY KEY,
  "form" TEXT NOT NULL,
  "revision" BIGINT NOT NULL,
  "createdAt" TIMESTAMPTZ NOT NULL,
  "updatedAt" TIMESTAMPTZ NOT NULL
);
CREATE TABLE "Revisions" (
  "etag" VARCHAR(128) NOT NULL PRIMARY KEY,
  "revision" BIGINT NOT NULL,
  "createdAt" TIMESTAMPTZ NOT NULL,
  "updatedAt" TIMESTAMPTZ NOT NULL
);
CREATE TABLE "ProxyRevisions" (
  "proxyId" INTEGER NOT NULL REFERENCES "Proxies" ("id") ON DELETE CASCADE,
  "revision" BIGINT NOT NULL,
  "liveSince" TIMESTAMPTZ NOT NULL,
  PRIMARY KEY ("proxyId", "revision")
);
INSERT INTO "Locks" ("name") VALUES ('routes');
