-- What a change altered, as a JSON array of {"field", "before", "after"}; never a secret's value.
ALTER TABLE `AuditEntries` ADD COLUMN `changes` TEXT;
