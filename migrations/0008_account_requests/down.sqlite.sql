DROP TABLE "AccountRequests";
