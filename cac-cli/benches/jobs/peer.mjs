// Jobs per second of graphile-worker: node peer.mjs plain|batched CONCURRENCY BATCH
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

const [mode, concurrency, batch] = process.argv.slice(2);
const JOBS = 20_000;
const connectionString = process.env.DATABASE_URL;
const logger = new Logger(() => () => {});
const utils = await makeWorkerUtils({ connectionString, logger });
await utils.migrate();
const pool = new pg.Pool({ connectionString, max: 1 });
await pool.query(
  "SELECT graphile_worker.add_job('nothing', json_build_object('number', n)) FROM generate_series(1, $1) AS n",
  [JOBS],
);
await pool.query("ANALYZE");

let begun = 0;
const worker = { concurrentJobs: Number(concurrency), maxPoolSize: 26 };
if (mode === "batched") {
  Object.assign(worker, { localQueue: { size: Number(batch) }, completeJobBatchDelay: 0, failJobBatchDelay: 0 });
}
const started = process.hrtime.bigint();
const runner = await run({
  preset: { worker: { connectionString, logger, ...worker } },
  taskList: { nothing: async () => { begun += 1; } },
});
for (;;) {
  if (begun >= JOBS) {
    const { rows } = await pool.query("SELECT COUNT(*)::int AS n FROM graphile_worker._private_jobs");
    if (rows[0].n === 0) break;
  }
  await new Promise((wake) => setTimeout(wake, 1));
}
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
await runner.stop();
await utils.release();
await pool.end();
console.log(JOBS / seconds);
