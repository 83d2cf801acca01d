-- An address that was lost without another one in its place stays with its container until this time: root in another guest could show it
-- the moment its holder restarts.
CREATE TABLE `AddressHolds` (
  `address` varchar(45) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
  `containerId` int NOT NULL,
  `until` datetime(3) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
