// The whole main job by a client generated from openapi/client.json (api.d.ts; `run` makes it).

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Job = components["schemas"]["Job"];
type Scope = components["schemas"]["TokenRequest"]["scopes"][number];
type Answer<T> = { data?: T; error?: unknown; response: Response };

const env = (name: string): string => process.env[name] ?? assert.fail(`${name} is not set`);
const portal = env("PORTAL_URL").replace(/\/$/, "");
const client = (headers: Record<string, string>) => createClient<paths>({ baseUrl: portal, headers });
const step = (what: string): void => console.log(`typescript: ${what}`);

function got<T>(answer: Answer<T>, status = 200): NonNullable<T> {
  assert.equal(answer.response.status, status, `${answer.response.url}: ${JSON.stringify(answer.error)}`);
  return answer.data ?? assert.fail(`${answer.response.url}: no body`);
}

function gone(answer: Answer<unknown>): void {
  assert.equal(answer.response.status, 204, JSON.stringify(answer.error));
}

function refused<E>(answer: { error?: E; response: Response }, status: number): NonNullable<E> {
  assert.equal(answer.response.status, status, answer.response.url);
  return answer.error ?? assert.fail(`${answer.response.url}: no problem told`);
}

// Signs in, makes a token and ends the session again.
async function tokenOf(username: string, password: string, scopes: Scope[]) {
  const login = await client({}).POST("/login", { body: { username, password } });
  assert.equal(got(login).success, true);
  const cookie = login.response.headers.getSetCookie()[0]?.split(";")[0] ?? assert.fail("no cookie");
  const session = client({ cookie });
  const name = `typescript-${process.pid}`;
  const token = got(await session.POST("/tokens", { body: { name, scopes } }), 201);
  assert.deepEqual([token.username, token.name, token.scopes], [username, name, scopes]);
  assert.ok(got(await session.GET("/sessions")).some((s) => s.current));
  got(await session.POST("/logout"));
  refused(await session.GET("/sessions"), 401);
  step(`${username} signed in, made token ${token.id}, signed out`);
  return { id: token.id, bearer: `Bearer ${token.token}` };
}

const username = env("PORTAL_USER");
const user = await tokenOf(username, env("PORTAL_PASSWORD"), ["containers:write", "jobs"]);
const boss = await tokenOf(env("PORTAL_ADMIN"), env("PORTAL_ADMIN_PASSWORD"), ["admin"]);
const api = client({ authorization: user.bearer });
const admin = client({ authorization: boss.bearer });

async function follow(id: number): Promise<Job> {
  for (let tries = 0; tries < 600; tries++) {
    const job = got(await api.GET("/jobs/{id}", { params: { path: { id } } }));
    if (job.status !== "pending" && job.status !== "running") {
      assert.equal(job.status, "success", job.reason);
      assert.ok(job.finishedAt !== undefined);
      return job;
    }
    await sleep(100);
  }
  assert.fail(`job ${id} does not end`);
}

// A change is done at once (200), or a job goes on with it (202).
async function settled(answer: Answer<{ success: boolean; jobId?: number }>): Promise<void> {
  const { status } = answer.response;
  const { success, jobId } = got(answer, status === 202 ? 202 : 200);
  assert.ok(success);
  assert.equal(jobId !== undefined, status === 202);
  if (jobId !== undefined) await follow(jobId);
}

const before = got(await api.GET("/quota"));
assert.equal(before.username, username);
const templates = got(await api.GET("/templates"));
const template = templates.find((t) => t.osRelease?.startsWith("debian")) ?? assert.fail("no debian");
step(`quota: ${before.used.containers ?? 0} containers used; ${templates.length} templates`);

const hostname = `ts-${process.pid}-${Date.now() % 100_000}`;
const osRelease = template.osRelease ?? assert.fail("no name");
const request = { init: true, hostname, osRelease, httpPort: 8080, additionalProtocols: ["rdp"] };
const query = { dryRun: true };
const bad = await api.POST("/containers", {
  params: { query },
  body: { ...request, hostname: "Not A Label", httpPort: 1 },
});
const problem = refused(bad, 400);
assert.deepEqual(Object.keys(problem.errors ?? {}).sort(), ["hostname", "httpPort"]);
step(`400: ${problem.detail}`);
const missing = refused(await api.GET("/containers/{id}", { params: { path: { id: 999_999_999 } } }), 404);
assert.equal(missing.status, 404);
step(`404: ${missing.detail}`);

const plan = got(await api.POST("/containers", { params: { query }, body: request }));
assert.ok(plan.success && plan.node !== undefined && plan.jobId === undefined);
step(`dry run: would be on ${plan.node}`);

const header = { "Idempotency-Key": hostname };
const asked = got(await api.POST("/containers", { params: { header }, body: request }), 202);
const again = got(await api.POST("/containers", { params: { header }, body: request }), 202);
assert.deepEqual([again.id, again.jobId], [asked.id, asked.jobId]);
const id = asked.id ?? assert.fail("no container");
const path = { id };
const jobId = asked.jobId ?? assert.fail("no job");
const stream = await fetch(`${portal}/api/stream/${jobId}`, { headers: { authorization: user.bearer } });
assert.equal(stream.headers.get("content-type")?.split(";")[0], "text/event-stream");
const events = (await stream.text()).trimEnd().split("\n\n");
assert.equal(events.at(-1), "event: close\ndata: Process finished with status: success");
const told = events.flatMap((event) => event.split("\n").filter((line) => line.startsWith('data: "')));
const text = told.map((line): unknown => JSON.parse(line.slice(6))).join("");
const made = await follow(jobId);
assert.deepEqual([made.containerId, made.kind], [id, "container_create"]);
const output = got(await api.GET("/jobs/{id}/status", { params: { path: { id: jobId } } }));
assert.equal(output.map((chunk) => chunk.output).join(""), text);
assert.match(text, /\[1\/\d\].*Ready:/s);
step(`container ${id} made by job ${jobId}, ${events.length} events, ${text.length} characters of output`);

const list = await api.GET("/containers");
assert.equal(Number(list.response.headers.get("x-total-count")), got(list).length);
assert.ok(got(list).some((c) => c.id === id));
const show = async () => got(await api.GET("/containers/{id}", { params: { path } }));
const container = await show();
assert.deepEqual([container.hostname, container.username, container.status], [hostname, username, "running"]);
assert.ok(container.services.some((s) => s.type === "tcp" && s.internalPort === 3389 && s.externalPort));
assert.match(container.ipv4Address ?? "", /^127\./);
const site = container.url ?? assert.fail("no url");
step(`listed and shown: ${site}, ${container.services.length} services`);

const services = async () => got(await api.GET("/containers/{id}/services", { params: { path } }));
const added = got(
  await api.POST("/containers/{id}/services", { params: { path }, body: { protocol: "9000/tcp" } }),
  201,
);
const one = { params: { path: { id, sid: added.id } } };
const changed = got(await api.PUT("/containers/{id}/services/{sid}", { ...one, body: { internalPort: 9001 } }));
assert.deepEqual([changed.internalPort, changed.externalPort], [9001, added.externalPort]);
assert.ok((await services()).some((s) => s.id === added.id && s.internalPort === 9001));
gone(await api.DELETE("/containers/{id}/services/{sid}", one));
assert.ok(!(await services()).some((s) => s.id === added.id));
step(`service ${added.id} added, changed, removed`);

await settled(await api.POST("/containers/{id}/stop", { params: { path } }));
assert.equal((await show()).status, "stopped");
await settled(await api.POST("/containers/{id}/start", { params: { path } }));
assert.equal((await show()).status, "running");
step("stopped and started");

const memory = (container.memory ?? assert.fail("no memory")) + 512;
await settled(await api.PUT("/containers/{id}", { params: { path }, body: { memory } }));
assert.equal((await show()).memory, memory);
step(`resized to ${memory} MiB`);

const name = "before-upgrade";
const snapshots = async () => got(await api.GET("/containers/{id}/snapshots", { params: { path } }));
await settled(await api.POST("/containers/{id}/snapshots", { params: { path }, body: { name } }));
assert.deepEqual((await snapshots()).map((s) => s.name), [name]);
const snapshot = { params: { path: { id, name } } };
await settled(await api.DELETE("/containers/{id}/snapshots/{name}", snapshot));
assert.deepEqual(await snapshots(), []);
step("snapshot taken, listed, deleted");

const deletion = await api.DELETE("/containers/{id}", { params: { path } });
await settled(deletion);
refused(await api.GET("/containers/{id}", { params: { path } }), 404);
assert.deepEqual(got(await api.GET("/quota")).used, before.used);
step("container deleted");

const nodes = got(await admin.GET("/nodes"));
const node = nodes.find((n) => n.enabled) ?? assert.fail("no node");
const check = got(await admin.POST("/nodes/{id}/test", { params: { path: { id: node.id } } }));
assert.deepEqual(check.problems, []);
assert.match(check.version ?? "", /^\d+\.\d+/);
step(`admin: ${nodes.length} nodes, ${node.name} has Proxmox VE ${check.version}`);

const filter = { username, target: `/containers/${id}`, newest: true };
const entries = got(await admin.GET("/audit", { params: { query: filter } }));
const entry = entries.find((e) => e.action === "container_delete") ?? assert.fail("not in the audit log");
assert.deepEqual([entry.username, entry.via, entry.tokenId], [username, "token", user.id]);
// The entry is as old as the request: a job was begun, whatever the answer waited for.
assert.equal(entry.status, 202);
step(`admin: ${entries.length} audit entries about container ${id}`);

const whose = { params: { path: { username } } };
const limited = got(await admin.PUT("/quotas/{username}", { ...whose, body: { containers: 7, memory: 65536 } }));
assert.deepEqual(limited.ownLimits, { containers: 7, memory: 65536 });
assert.equal(got(await api.GET("/quota")).limits.containers, 7);
assert.deepEqual(got(await admin.PUT("/quotas/{username}", { ...whose, body: before.ownLimits })), before);
refused(await api.PUT("/quotas/{username}", { ...whose, body: {} }), 403);
step(`admin: quota of ${username} set and reset`);

const conf = await admin.GET("/nginx.conf", { parseAs: "text" });
assert.match(got(conf), /http \{/);
const etag = conf.response.headers.get("etag") ?? assert.fail("no ETag");
const same = await admin.GET("/nginx.conf", { parseAs: "text", params: { header: { "If-None-Match": etag } } });
assert.equal(same.response.status, 304);
step("admin: nginx.conf, 304 the second time");

for (const { id, bearer } of [user, boss]) {
  gone(await admin.DELETE("/tokens/{id}", { params: { path: { id } } }));
  refused(await client({ authorization: bearer }).GET("/quota"), 401);
}
step("tokens deleted");
