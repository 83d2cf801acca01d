-- Where a user has signed in from. kind: device (value: keyed hash of the secret in the device's cookie) or network (value: an address,
-- with IPv6 a /64); lastAt: the newest successful sign-in from there.
CREATE TABLE "SignInOrigins" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "username" VARCHAR(255) NOT NULL,
  "kind" VARCHAR(16) NOT NULL,
  "value" VARCHAR(64) NOT NULL,
  "createdAt" TEXT NOT NULL,
  "lastAt" TEXT NOT NULL,
  CONSTRAINT "sign_in_origins_username_kind_value" UNIQUE ("username", "kind", "value")
);

CREATE INDEX "sign_in_origins_value" ON "SignInOrigins" ("value");
CREATE INDEX "sign_in_origins_last_at" ON "SignInOrigins" ("lastAt");

-- What Proxmox VE says of the users that own something. state: unknown, active, disabled, missing (since missingSince), or returned (the
-- name was missing and exists again); checkedAt: the last definite answer; triedAt: the last question.
CREATE TABLE "UserStates" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "username" VARCHAR(255) NOT NULL,
  "state" VARCHAR(16) NOT NULL DEFAULT 'unknown',
  "missingSince" TEXT,
  "checkedAt" TEXT,
  "triedAt" TEXT,
  CONSTRAINT "user_states_username" UNIQUE ("username")
);

-- Users who own nothing but finished jobs are found here from now on; counting through all jobs each time would be slow.
INSERT INTO "UserStates" ("username") SELECT DISTINCT "createdBy" FROM "Jobs" WHERE "createdBy" IS NOT NULL AND "createdBy" <> '';
