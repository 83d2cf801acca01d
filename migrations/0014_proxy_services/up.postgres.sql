-- Since when each proxy serves which service in the form of which revision, and the ports that other programs have on its machine.
-- What was known before is told again with the next report.
ALTER TABLE "Proxies" ADD COLUMN "taken" TEXT NOT NULL DEFAULT '';
CREATE TABLE "ProxyServices" (
  "proxyId" INTEGER NOT NULL REFERENCES "Proxies" ("id") ON DELETE CASCADE,
  "serviceId" INTEGER NOT NULL,
  "revision" BIGINT NOT NULL,
  "liveSince" TIMESTAMPTZ NOT NULL,
  PRIMARY KEY ("proxyId", "serviceId")
);
CREATE INDEX "proxy_services_service" ON "ProxyServices" ("serviceId");
DROP TABLE "ProxyRevisions";
DELETE FROM "Revisions" WHERE "leftOut" <> '';
ALTER TABLE "Revisions" ALTER COLUMN "leftOut" TYPE TEXT;
