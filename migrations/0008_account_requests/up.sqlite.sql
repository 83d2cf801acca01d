-- People who ask for an account. status: pending, declined, approved (the link was sent), done (the user exists);
-- linkHash: SHA-256 of the one-time link's secret.
CREATE TABLE "AccountRequests" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "name" VARCHAR(100) NOT NULL,
  "email" VARCHAR(254) NOT NULL,
  "username" VARCHAR(64) NOT NULL,
  "reason" TEXT NOT NULL,
  "status" VARCHAR(16) NOT NULL DEFAULT 'pending',
  "decidedBy" VARCHAR(255),
  "decidedAt" TEXT,
  "answer" TEXT,
  "linkHash" VARCHAR(64),
  "linkExpires" TEXT,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  CONSTRAINT "account_requests_link_hash" UNIQUE ("linkHash")
);

CREATE INDEX "account_requests_status" ON "AccountRequests" ("status", "id");
