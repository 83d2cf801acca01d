-- An address that was lost without another one in its place stays with its container until this time: root in another guest could show it
-- the moment its holder restarts.
CREATE TABLE "AddressHolds" (
  "address" VARCHAR(45) NOT NULL PRIMARY KEY,
  "containerId" INTEGER NOT NULL,
  "until" TEXT NOT NULL
);
