-- Who did what to what, from where, with which result. Rows are only ever added.
CREATE TABLE "AuditEntries" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "username" VARCHAR(255),
  "via" VARCHAR(16) NOT NULL,
  "tokenId" INTEGER,
  "address" VARCHAR(45),
  "action" VARCHAR(64) NOT NULL,
  "target" VARCHAR(255) NOT NULL,
  "status" INTEGER NOT NULL,
  "detail" TEXT,
  "requestId" VARCHAR(32),
  "createdAt" TEXT NOT NULL
);

CREATE INDEX "audit_entries_username" ON "AuditEntries" ("username", "id");
CREATE INDEX "audit_entries_created_at" ON "AuditEntries" ("createdAt");
