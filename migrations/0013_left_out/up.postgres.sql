-- Ports that the file with a tag leaves out, since another program has them on the machine of a proxy, and since when a proxy serves a
-- revision without them.
ALTER TABLE "Revisions" ADD COLUMN "leftOut" VARCHAR(255) NOT NULL DEFAULT '';
ALTER TABLE "ProxyRevisions" ADD COLUMN "leftOut" VARCHAR(255) NOT NULL DEFAULT '';
ALTER TABLE "ProxyRevisions" DROP CONSTRAINT "ProxyRevisions_pkey";
ALTER TABLE "ProxyRevisions" ADD PRIMARY KEY ("proxyId", "revision", "leftOut");
