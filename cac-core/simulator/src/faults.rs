//! Faults on demand: which requests they hit and what then happens. Not the doing of it (see `server` and `task`).

use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

/// One fault: the requests it hits, how often, and what it does to them.
///
/// As JSON for `POST /simulator/faults`:
/// `{"method": "POST", "path": "/status/start", "count": 1, "action": {"status": {"code": 595, "reason": "No route to host"}}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// HTTP method; absent for any.
    #[serde(default)]
    pub method: Option<String>,
    /// Part of the decoded path behind `/api2/json`, for example `/lxc/101/status`; empty for any.
    #[serde(default)]
    pub path: String,
    /// How many requests are hit before the fault is used up; 0 for every one.
    #[serde(default = "once")]
    pub count: u32,
    /// What happens to a request that is hit.
    pub action: Action,
}

fn once() -> u32 {
    1
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The request waits before it is worked on.
    Latency {
        /// Milliseconds.
        ms: u64,
    },
    /// The request is answered with this status and an empty body; nothing is done.
    Status {
        /// 100 to 999; 595 and 596 are those of an unreachable node.
        code: u16,
        /// Text of the status line.
        reason: String,
    },
    /// The connection breaks off and nothing was done.
    DropBefore,
    /// The work is done, then the connection breaks off without an answer.
    DropAfter,
    /// The file lock of the container in the path is held: calls and tasks on it wait and time out.
    HoldLock {
        /// Milliseconds.
        ms: u64,
    },
    /// The container in the path carries this `lock` for a while, as during a backup.
    Lock {
        /// `backup`, `migrate`, `snapshot`, …
        name: String,
        /// Milliseconds.
        ms: u64,
    },
    /// The task that the request starts hangs half-way until it is aborted.
    HangTask,
    /// The task that the request starts fails half-way with this text.
    FailTask {
        /// Becomes the exit status.
        text: String,
    },
}

/// Gets the number of a request and its moment; `false` breaks the connection off.
type Witness = Box<dyn Fn(u64, Moment) -> bool + Send + Sync>;

/// A request is seen twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing was done yet.
    Before,
    /// The work is done, the answer is not sent.
    After,
}

/// The faults that wait for requests.
#[derive(Default)]
pub struct Faults {
    list: Mutex<Vec<Fault>>,
    witness: OnceLock<Witness>,
}

impl Faults {
    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fault; several may hit the same request, in the order they were added.
    pub fn add(&self, fault: Fault) {
        self.list().push(fault);
    }

    /// Adds a fault that hits the next request with this method and path part.
    pub fn once(&self, method: &str, path: &str, action: Action) {
        self.add(Fault {
            method: Some(method.to_owned()),
            path: path.to_owned(),
            count: 1,
            action,
        });
    }

    /// Asks `passes` before and after the work of each request, numbered from 1; `false` breaks the connection off there. Only the
    /// first one who watches is asked.
    pub fn watch(&self, passes: impl Fn(u64, Moment) -> bool + Send + Sync + 'static) {
        drop(self.witness.set(Box::new(passes)));
    }

    pub(crate) fn passes(&self, number: u64, moment: Moment) -> bool {
        let witness = self.witness.get();
        witness.is_none_or(|witness| witness(number, moment))
    }

    /// The faults that are not used up.
    pub fn pending(&self) -> Vec<Fault> {
        self.list().clone()
    }

    /// Takes all faults back.
    pub fn clear(&self) {
        self.list().clear();
    }

    /// The actions for a request; counts down.
    pub(crate) fn hit(&self, method: &str, path: &str) -> Vec<Action> {
        let mut actions = Vec::new();
        self.list().retain_mut(|fault| {
            let hit =
                fault.method.as_deref().is_none_or(|m| m == method) && path.contains(&fault.path);
            if !hit {
                return true;
            }
            actions.push(fault.action.clone());
            match fault.count {
                0 => true,
                1 => false,
                _ => {
                    fault.count -= 1;
                    true
                }
            }
        });
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_up_after_its_count() {
        let faults = Faults::default();
        faults.once("GET", "/version", Action::DropBefore);
        assert!(faults.hit("POST", "/version").is_empty());
        assert_eq!(faults.hit("GET", "/version"), [Action::DropBefore]);
        assert!(faults.hit("GET", "/version").is_empty());
    }

    #[test]
    fn json_form_is_the_documented_one() {
        let text =
            r#"{"path": "/x", "action": {"status": {"code": 595, "reason": "No route to host"}}}"#;
        let fault: Fault = serde_json::from_str(text).expect("documented form");
        assert_eq!(fault.count, 1);
        let text = r#"{"action": "hang_task", "count": 2}"#;
        assert!(serde_json::from_str::<Fault>(text).is_ok());
    }
}
