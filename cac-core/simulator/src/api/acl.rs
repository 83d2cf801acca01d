//! `/access/acl` and `/access/roles`: who has which role where, and what a role holds.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::access::acl_path;
use super::{Call, not_simulated};
use crate::answer::{Output, ParamErrors, Refusal, Reply};
use crate::rights::{self, Who};
use crate::world::{AclEntry, AclKind, World};

pub(crate) fn answer(method: &str, template: &str, call: &Call) -> Reply {
    match (method, template) {
        ("GET", "/access/acl") => Ok(list(call)),
        ("PUT", "/access/acl") => change(call),
        ("GET", "/access/roles") => Ok(roles(call)),
        ("POST", "/access/roles") => create_role(call),
        ("GET", "/access/roles/{roleid}") => role(call),
        ("DELETE", "/access/roles/{roleid}") => delete_role(call),
        _ => not_simulated(method, template),
    }
}

/// Everything for an auditor, else the paths whose rights the caller may change.
fn list(call: &Call) -> Output {
    let rows: Vec<Value> = call.with_gate(|gate| {
        let auditor = gate.has("/access", "Sys.Audit");
        let entries = gate.world.acl.iter();
        entries
            .filter(|entry| auditor || gate.may_modify(&entry.path).is_ok())
            .map(|entry| {
                json!({
                    "path": entry.path, "type": entry.kind, "ugid": entry.who,
                    "roleid": entry.role, "propagate": u8::from(entry.propagate),
                })
            })
            .collect()
    });
    json!(rows).into()
}

/// Whether a path can hold rights at all.
fn is_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        []
        | ["access" | "nodes" | "storage" | "pool" | "vms" | "sdn" | "mapping"]
        | ["access", "groups" | "realm"]
        | ["access", "groups" | "realm", _]
        | ["nodes" | "storage", _]
        | ["sdn", ..] => true,
        ["pool", names @ ..] => names.len() <= 3,
        ["vms", vmid] => vmid.parse::<u32>().is_ok_and(|vmid| vmid >= 100),
        ["mapping", kind, ..] => matches!(*kind, "pci" | "usb" | "dir") && parts.len() <= 3,
        _ => false,
    }
}

fn change(call: &Call) -> Reply {
    let path = acl_path(call.params.text("path"));
    let kinds = [
        ("users", AclKind::User),
        ("groups", AclKind::Group),
        ("tokens", AclKind::Token),
    ];
    if kinds
        .iter()
        .all(|(name, _)| call.params.get(name).is_none())
    {
        let text = "either 'users', 'groups' or 'tokens' is required.".to_owned();
        let errors: ParamErrors = kinds
            .iter()
            .map(|(name, _)| ((*name).to_owned(), text.clone()))
            .collect();
        return Err(Refusal::Params(errors));
    }
    if !is_path(&path) {
        let given = call.params.text("path");
        return Err(Refusal::param(
            "path",
            format!("invalid ACL path '{given}'"),
        ));
    }
    let mut world = call.core.change();
    let mut entries = Vec::new();
    for role in call.params.list("roles") {
        known_role(&world, &role)?;
        for (name, kind) in kinds {
            for who in call.params.list(name) {
                known_owner(&world, kind, &who)?;
                entries.push(AclEntry {
                    path: path.clone(),
                    kind,
                    who,
                    role: role.clone(),
                    propagate: call.params.get("propagate") != Some("0"),
                });
            }
        }
    }
    let same = |a: &AclEntry, b: &AclEntry| {
        a.path == b.path && a.kind == b.kind && a.who == b.who && a.role == b.role
    };
    world
        .acl
        .retain(|old| !entries.iter().any(|new| same(old, new)));
    if !call.params.flag("delete") {
        world.acl.extend(entries);
    }
    Ok(Value::Null.into())
}

fn failed(text: &str) -> Refusal {
    Refusal::failed(format!("ACL update failed: {text}"))
}

fn known_role(world: &World, role: &str) -> Result<(), Refusal> {
    match rights::role(world, role) {
        Some(_) => Ok(()),
        None => Err(failed(&format!("role '{role}' does not exist"))),
    }
}

fn known_owner(world: &World, kind: AclKind, name: &str) -> Result<(), Refusal> {
    let text = match kind {
        AclKind::User if world.users.contains_key(name) => return Ok(()),
        AclKind::Group if world.groups.contains_key(name) => return Ok(()),
        AclKind::User => format!("user '{name}' does not exist"),
        AclKind::Group => format!("group '{name}' does not exist"),
        AclKind::Token => {
            let who = Who::parse(name);
            let token = who.token.unwrap_or_default();
            match world.users.get(&who.user) {
                Some(user) if user.tokens.contains_key(&token) => return Ok(()),
                _ => format!("no such token '{token}' for user '{}'", who.user),
            }
        }
    };
    Err(failed(&text))
}

fn roles(call: &Call) -> Output {
    let world = call.core.world();
    let rows: Vec<Value> = rights::roles(&world)
        .into_iter()
        .map(|(name, privileges, special)| {
            let list: Vec<String> = privileges.into_iter().collect();
            json!({"roleid": name, "privs": list.join(","), "special": u8::from(special)})
        })
        .collect();
    json!(rows).into()
}

fn role(call: &Call) -> Reply {
    let name = call.params.text("roleid");
    let Some(privileges) = rights::role(&call.core.world(), name) else {
        return Err(Refusal::failed(format!("role '{name}' does not exist")));
    };
    let flags: Map<String, Value> = privileges.into_iter().map(|p| (p, json!(1))).collect();
    Ok(Value::Object(flags).into())
}

fn create_role(call: &Call) -> Reply {
    let name = call.params.text("roleid");
    let privileges: BTreeSet<String> = call.params.list("privs").into_iter().collect();
    let mut world = call.core.change();
    if rights::role(&world, name).is_some() {
        let text = format!("create role failed: role '{name}' already exists");
        return Err(Refusal::failed(text));
    }
    world.roles.insert(name.to_owned(), privileges);
    Ok(Value::Null.into())
}

fn delete_role(call: &Call) -> Reply {
    let name = call.params.text("roleid");
    let mut world = call.core.change();
    if world.roles.remove(name).is_none() {
        let text = match rights::role(&world, name) {
            Some(_) => format!("auto-generated role '{name}' cannot be deleted"),
            None => format!("delete role failed: role '{name}' does not exist"),
        };
        return Err(Refusal::failed(text));
    }
    world.acl.retain(|entry| entry.role != name);
    Ok(Value::Null.into())
}
