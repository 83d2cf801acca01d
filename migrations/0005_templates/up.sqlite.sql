-- templates: which template an osRelease means on this node, as `debian=lxc/160, rocky=local:vztmpl/…`.
ALTER TABLE "Nodes" ADD COLUMN "templates" TEXT DEFAULT NULL;

-- lane: the template container that this one is being cloned from, as `node id/VMID`; one clone of a template at a time.
ALTER TABLE "Containers" ADD COLUMN "lane" VARCHAR(64) DEFAULT NULL;
CREATE UNIQUE INDEX "containers_lane" ON "Containers" ("lane");
