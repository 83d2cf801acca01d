-- The original's tables by the same names, in the form that 0002 gives them on MariaDB.
-- AUTOINCREMENT: ids are never reused. Times are RFC 3339 UTC with milliseconds, always bound.
CREATE TABLE "Nodes" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "name" VARCHAR(255) NOT NULL UNIQUE,
  "apiUrl" VARCHAR(255),
  "tokenId" VARCHAR(255),
  "secret" VARCHAR(255),
  "tlsVerify" BOOLEAN,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL
);

CREATE TABLE "Containers" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "hostname" VARCHAR(255) NOT NULL UNIQUE,
  "username" VARCHAR(255) NOT NULL,
  "osRelease" VARCHAR(255),
  "containerId" INTEGER CHECK ("containerId" >= 0),
  "macAddress" VARCHAR(17) UNIQUE,
  "ipv4Address" VARCHAR(45) UNIQUE,
  "aiContainer" VARCHAR(50) NOT NULL DEFAULT 'N',
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  "nodeId" INTEGER REFERENCES "Nodes" ("id") ON UPDATE CASCADE,
  CONSTRAINT "containers_node_id_container_id_unique" UNIQUE ("nodeId", "containerId")
);

CREATE TABLE "Services" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "containerId" INTEGER NOT NULL REFERENCES "Containers" ("id") ON DELETE CASCADE,
  "type" TEXT NOT NULL CHECK ("type" IN ('tcp', 'udp', 'http')),
  "internalPort" INTEGER NOT NULL CHECK ("internalPort" >= 0),
  "externalPort" INTEGER CHECK ("externalPort" >= 0),
  "tls" BOOLEAN,
  "externalHostname" VARCHAR(255),
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  CONSTRAINT "services_http_unique_hostname" UNIQUE ("externalHostname"),
  CONSTRAINT "services_layer4_unique_port" UNIQUE ("type", "externalPort")
);

CREATE INDEX "services_container_id" ON "Services" ("containerId");

CREATE TABLE "Sessions" (
  "session_id" VARCHAR(64) NOT NULL PRIMARY KEY,
  "expires" TEXT,
  "data" TEXT,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL
);

CREATE TABLE "Jobs" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "command" VARCHAR(2000) NOT NULL,
  "status" TEXT NOT NULL DEFAULT 'pending'
    CHECK ("status" IN ('pending', 'running', 'success', 'failure', 'cancelled')),
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL,
  "createdBy" VARCHAR(255)
);

CREATE INDEX "jobs_created_by" ON "Jobs" ("createdBy");

CREATE TABLE "JobStatuses" (
  "id" INTEGER PRIMARY KEY AUTOINCREMENT,
  "jobId" INTEGER NOT NULL REFERENCES "Jobs" ("id") ON DELETE CASCADE,
  "output" TEXT,
  "createdAt" TEXT NOT NULL,
  "updatedAt" TEXT NOT NULL
);

CREATE INDEX "job_statuses_job_id" ON "JobStatuses" ("jobId", "id");
