DROP TABLE `AuditEntries`;
