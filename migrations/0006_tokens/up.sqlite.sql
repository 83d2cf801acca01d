-- hash: SHA-256 of the token, which itself is shown once; beginning: its first characters, to tell tokens apart;
-- admin and adminCheckedAt: of the owner, looked up as for sessions; suspended: the owner may not sign in any more.
CREATE TABLE "Tokens" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "username" VARCHAR(255) NOT NULL,
  "name" VARCHAR(64) NOT NULL,
  "hash" VARCHAR(64) NOT NULL,
  "beginning" VARCHAR(16) NOT NULL,
  "scopes" VARCHAR(255) NOT NULL,
  "expires" TEXT,
  "lastUsedAt" TEXT,
  "admin" BOOLEAN NOT NULL DEFAULT FALSE,
  "adminCheckedAt" TEXT NOT NULL,
  "suspended" BOOLEAN NOT NULL DEFAULT FALSE,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  CONSTRAINT "tokens_hash" UNIQUE ("hash")
);

CREATE INDEX "tokens_username" ON "Tokens" ("username");

-- For counting failed logins.
INSERT INTO "Locks" ("name") VALUES ('logins');
