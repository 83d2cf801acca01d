ALTER TABLE "AuditEntries" DROP COLUMN "changes";
