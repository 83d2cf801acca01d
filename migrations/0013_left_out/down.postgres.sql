DELETE FROM "ProxyRevisions" "later" USING "ProxyRevisions" "first" WHERE "first"."proxyId" = "later"."proxyId"
  AND "first"."revision" = "later"."revision" AND ("first"."liveSince", "first"."leftOut") < ("later"."liveSince", "later"."leftOut");
ALTER TABLE "ProxyRevisions" DROP CONSTRAINT "ProxyRevisions_pkey";
ALTER TABLE "ProxyRevisions" ADD PRIMARY KEY ("proxyId", "revision");
ALTER TABLE "ProxyRevisions" DROP COLUMN "leftOut";
ALTER TABLE "Revisions" DROP COLUMN "leftOut";
