DROP TABLE `AccountRequests`;
