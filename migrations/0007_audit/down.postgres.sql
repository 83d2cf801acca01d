DROP TABLE "AuditEntries";
