//! The most memory that a runner ever had, with a job that prints 1 GB.

use crate::lab::Running;
use crate::place::{add, all_well, databases, ended, fresh};

const BYTES: u64 = 1_000_000_000;

pub(crate) async fn measure() {
    for name in databases() {
        let database = fresh(name).await;
        let vars = [
            ("DATABASE_URL", database.url.as_str()),
            ("JOB_OUTPUT_LIMIT_MIB", "1024"),
        ];
        let runner = Running::start("cac-runner", &[], &vars);
        add(&database, 1, "true", None).await;
        ended(&database.db).await;
        let idle = most(&runner);
        add(
            &database,
            1,
            &format!("yes 'This line is printed again and again.' | head -c {BYTES}"),
            None,
        )
        .await;
        ended(&database.db).await;
        let most = most(&runner);
        runner.stop();
        all_well(&database.db, 2).await;
        let (ours, before) = (format!("{most} MB"), format!("{idle} MB (after `true`)"));
        crate::row(
            "most memory of a runner, job prints 1 GB",
            name,
            &ours,
            &before,
            "",
        );
    }
}

/// The high-water mark of resident memory, in MB.
fn most(runner: &Running) -> u64 {
    let path = format!("/proc/{}/status", runner.pid().as_raw_pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024 / 1_000_000
}
