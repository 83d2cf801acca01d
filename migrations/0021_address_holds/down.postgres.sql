DROP TABLE "AddressHolds";
