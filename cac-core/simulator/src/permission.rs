//! The permission expressions of the contract (`perm`, `and`, `or`, `userid-group`, …) evaluated for a caller.

use serde_json::Value;

use crate::answer::Refusal;
use crate::params::{Params, split_list};
use crate::rights::{self, Who};
use crate::world::World;

/// A caller in front of the world, with the parameters of the call.
pub(crate) struct Gate<'a> {
    pub(crate) world: &'a World,
    pub(crate) who: &'a Who,
    pub(crate) params: &'a Params,
}

type Verdict = Result<(), Refusal>;

fn strings(value: Option<&Value>) -> Vec<&str> {
    value
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

fn denied() -> Refusal {
    Refusal::forbidden("")
}

impl Gate<'_> {
    pub(crate) fn has(&self, path: &str, privilege: &str) -> bool {
        rights::privileges(self.world, self.who, path).contains_key(privilege)
    }

    pub(crate) fn has_any(&self, path: &str, privileges: &[&str]) -> bool {
        let held = rights::privileges(self.world, self.who, path);
        privileges.iter().any(|p| held.contains_key(*p))
    }

    /// All privileges are needed; the first missing one is named.
    pub(crate) fn need(&self, path: &str, privileges: &[&str]) -> Verdict {
        let held = rights::privileges(self.world, self.who, path);
        match privileges.iter().find(|p| !held.contains_key(**p)) {
            Some(missing) => Err(Refusal::forbidden(format!("{path}, {missing}"))),
            None => Ok(()),
        }
    }

    /// One of the privileges is enough.
    pub(crate) fn need_any(&self, path: &str, privileges: &[&str]) -> Verdict {
        if self.has_any(path, privileges) {
            return Ok(());
        }
        let names = privileges.join("|");
        Err(Refusal::forbidden(format!("{path}, {names}")))
    }

    /// Evaluates the `check` of an endpoint.
    pub(crate) fn check(&self, check: &Value) -> Verdict {
        match check {
            Value::String(word) if word != "root" => Ok(()),
            _ if self.who.is_root() => Ok(()),
            Value::Array(list) => self.test(list),
            _ => Err(Refusal::forbidden("user != root@pam")),
        }
    }

    fn test(&self, list: &[Value]) -> Verdict {
        let kind = list.first().and_then(Value::as_str).unwrap_or_default();
        let arrays = || list[1..].iter().filter_map(Value::as_array);
        match kind {
            "and" => arrays().try_for_each(|inner| self.test(inner)),
            "or" => self.test_or(&list[1..]),
            "perm" => self.test_perm(list),
            "perm-modify" => self.may_modify(self.params.text("path")),
            "userid-param" => self.test_userid_param(list),
            "userid-group" => self.test_userid_group(list),
            _ => Err(denied()),
        }
    }

    fn test_or(&self, alternatives: &[Value]) -> Verdict {
        let mut last = denied();
        for inner in alternatives.iter().filter_map(Value::as_array) {
            match self.test(inner) {
                Ok(()) => return Ok(()),
                // Only a combined alternative says what is missing, a single one does not.
                Err(error) if inner[0] == "and" => last = error,
                Err(Refusal::Failed(text)) => return Err(Refusal::Failed(text)),
                Err(_) => last = denied(),
            }
        }
        Err(last)
    }

    fn test_perm(&self, list: &[Value]) -> Verdict {
        let option = |name: &str| {
            list.iter()
                .position(|value| value == name)
                .and_then(|index| list.get(index + 1))
        };
        if let Some(needed) = option("require_param").and_then(Value::as_str)
            && self.params.get(needed).is_none()
        {
            return Err(denied());
        }
        let path = self.fill(list[1].as_str().unwrap_or_default());
        let privileges = strings(list.get(2));
        if option("any").is_some() {
            self.need_any(&path, &privileges)
        } else {
            self.need(&path, &privileges)
        }
    }

    /// Puts parameters into `/vms/{vmid}`.
    fn fill(&self, template: &str) -> String {
        let mut path = template.to_owned();
        for (name, value) in &self.params.0 {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        path
    }

    /// Whether the caller may give rights on a path.
    pub(crate) fn may_modify(&self, path: &str) -> Verdict {
        let path = crate::api::access::acl_path(path);
        let mut privileges = vec!["Permissions.Modify"];
        for (prefix, privilege) in [
            ("/storage/", "Datastore.Allocate"),
            ("/vms/", "VM.Allocate"),
            ("/pool/", "Pool.Allocate"),
        ] {
            if path.starts_with(prefix) {
                privileges.push(privilege);
            }
        }
        self.need_any(&path, &privileges)
    }

    fn test_userid_param(&self, list: &[Value]) -> Verdict {
        let userid = self.params.text("userid");
        match list.get(1).and_then(Value::as_str).unwrap_or_default() {
            "self" => {
                self.user_exists(userid)?;
                if self.who.id() == userid {
                    Ok(())
                } else {
                    Err(denied())
                }
            }
            privilege => {
                let realm = userid.rsplit_once('@').map_or("", |(_, realm)| realm);
                self.need(&format!("/access/realm/{realm}"), &[privilege])
            }
        }
    }

    fn user_exists(&self, userid: &str) -> Verdict {
        if self.world.users.contains_key(userid) {
            return Ok(());
        }
        Err(Refusal::failed(format!("no such user ('{userid}')")))
    }

    fn test_userid_group(&self, list: &[Value]) -> Verdict {
        let userid = self.params.text("userid");
        let privileges = strings(list.get(1));
        let groups_param = list
            .iter()
            .position(|value| value == "groups_param")
            .and_then(|index| list.get(index + 1))
            .and_then(Value::as_str);
        let existing = groups_param != Some("create");
        if existing {
            self.user_exists(userid)?;
        }
        if self.has_any("/access/groups", &privileges) {
            return Ok(());
        }
        let allowed = |group: &str| self.has_any(&format!("/access/groups/{group}"), &privileges);
        if groups_param.is_some() {
            let wanted = split_list(self.params.text("groups"));
            if wanted.is_empty() && !existing {
                return self.need_any("/access/groups", &privileges);
            }
            for group in wanted {
                self.need_any(&format!("/access/groups/{group}"), &privileges)?;
            }
        }
        let user = self.world.users.get(userid);
        if !existing || user.is_some_and(|user| user.groups.iter().any(|g| allowed(g))) {
            return Ok(());
        }
        Err(denied())
    }
}
