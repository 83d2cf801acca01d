-- The older release gives suspended tokens back as soon as the name exists again; so those that wait for a decision end here.
DELETE FROM "Tokens" WHERE "username" IN (SELECT "username" FROM "UserStates" WHERE "state" IN ('missing', 'returned'));

DROP TABLE "UserStates";
DROP TABLE "SignInOrigins";
