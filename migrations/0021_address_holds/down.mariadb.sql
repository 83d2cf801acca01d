DROP TABLE `AddressHolds`;
