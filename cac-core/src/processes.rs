//! The processes of this machine as `/proc` shows them. Whose they are, and what becomes of them, is their keepers' matter.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that is not a zombie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// In ticks since the machine started: with the number it never means another process.
    pub(crate) began: u64,
}

/// All processes, in no order.
pub(crate) fn seen() -> impl Iterator<Item = Seen> {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|folder| look(folder.file_name().to_str()?.parse().ok()?))
}

/// One of them.
pub(crate) fn look(pid: i32) -> Option<Seen> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may contain anything: state, parent, group.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    fields.next().filter(|state| !matches!(*state, "Z" | "X"))?;
    Some(Seen {
        pid,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        began: fields.nth(16)?.parse().ok()?,
    })
}

/// A handle on the process, which unlike its number can never mean another one; nothing when it is not `right` any more.
pub(crate) fn hold(pid: i32, right: impl Fn(i32) -> bool) -> Option<OwnedFd> {
    if !right(pid) {
        return None;
    }
    let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Looked at again: the number may have gone to somebody else before it was held.
    right(pid).then_some(handle)
}

/// Those that this process started itself, as its first thread: quickly seen, and one that is missing may yet be there.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let list = list.unwrap_or_default();
    let pids = list.split_ascii_whitespace();
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

/// What descends from `root`, in no order; `root` itself is not part of it.
pub(crate) fn descendants(root: i32) -> Vec<Seen> {
    let mut others: Vec<Seen> = seen().collect();
    let mut parents = vec![root];
    let mut found = Vec::new();
    while let Some(parent) = parents.pop() {
        let (children, rest): (Vec<Seen>, Vec<Seen>) =
            others.into_iter().partition(|seen| seen.parent == parent);
        others = rest;
        parents.extend(children.iter().map(|child| child.pid));
        found.extend(children);
    }
    found
}

/// Signals what descends from `root`; how many processes that were.
pub(crate) fn signal_descendants(root: i32, signal: Signal) -> usize {
    let found = descendants(root);
    for process in &found {
        let same = |pid| look(pid).is_some_and(|now| now.parent == process.parent);
        if let Some(handle) = hold(process.pid, same) {
            // It fails when the process has ended meanwhile.
            let _ = pidfd_send_signal(&handle, signal);
        }
    }
    found.len()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_and_its_descendants_are_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(seen().any(|seen| seen.pid == own));
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60 & read line"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let shell = i32::try_from(child.id()).unwrap();
        while descendants(shell).is_empty() {
            std::thread::yield_now();
        }
        assert!(descendants(own).iter().any(|seen| seen.pid == shell));
        assert_eq!(signal_descendants(shell, Signal::KILL), 1);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
