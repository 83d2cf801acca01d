DELETE FROM "Locks" WHERE "name" = 'proxies';
DROP TABLE "Proxies";
