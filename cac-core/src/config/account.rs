//! Reading the account that jobs run as, and whether this process may use it.

use std::path::PathBuf;

use super::Account;
use super::reader::Reader;

pub(super) fn runner_user(r: &mut Reader<'_>) -> Option<Account> {
    let name = r.vars.get("JOB_RUNNER_USER")?.to_owned();
    if !may_start_as_others() {
        r.problem(
            "JOB_RUNNER_USER",
            "needs a runner that may act as another user. The packaged unit lets it while SHELL_JOBS is `on` or JOB_TASKS_FILE is set: \
             after a change of either run `systemctl daemon-reload`, then start it again. Elsewhere start the runner as root, or with \
             CAP_SETUID, CAP_SETGID and CAP_KILL",
        );
        return None;
    }
    let found = account(&name);
    if found.is_none() {
        r.problem(
            "JOB_RUNNER_USER",
            format!("must name an account of this machine; `getent passwd {name}` finds none"),
        );
    }
    found
}

/// Whether this process may start programs as another user, and signal them then.
fn may_start_as_others() -> bool {
    // CAP_KILL, CAP_SETGID and CAP_SETUID by their numbers, linux/capability.h.
    const NEEDED: u64 = 1 << 5 | 1 << 6 | 1 << 7;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    match effective {
        Some(effective) => effective & NEEDED == NEEDED,
        None => rustix::process::geteuid().is_root(),
    }
}

/// Asked of `getent`, which knows accounts of directories, too.
fn account(name: &str) -> Option<Account> {
    let asked = std::process::Command::new("getent")
        .args(["passwd", "--", name])
        .output()
        .ok()?;
    let line = String::from_utf8(asked.stdout).ok()?;
    let fields: Vec<&str> = line.lines().next()?.split(':').collect();
    let [name, _, uid, gid, _, home, _] = fields[..] else {
        return None;
    };
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: PathBuf::from(home),
    })
}
