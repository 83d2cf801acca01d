//! `/access`: login, password, permissions. Users and groups stand in `users`, roles and the access control list in `acl`.

use serde_json::{Map, Value, json};

use super::{Call, acl, index, not_simulated, users};
use crate::answer::{Refusal, Reply};
use crate::auth;
use crate::rights::{self, Who};
use crate::world::{World, hash_password, password_matches};

pub(crate) fn answer(method: &str, template: &str, call: &Call) -> Reply {
    match (method, template) {
        ("GET", "/access") => Ok(index(
            "subdir",
            &[
                "users", "groups", "roles", "acl", "domains", "openid", "tfa", "ticket", "password",
            ],
        )),
        ("GET", "/access/ticket") => Ok(Value::Null.into()),
        ("POST", "/access/ticket") => login(call),
        ("PUT", "/access/password") => change_password(call),
        ("GET", "/access/domains") => Ok(json!([
            {"realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication"},
            {"realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server"},
        ])
        .into()),
        ("GET", "/access/permissions") => permissions(call),
        _ if template.starts_with("/access/users") || template.starts_with("/access/groups") => {
            users::answer(method, template, call)
        }
        _ if template.starts_with("/access/acl") || template.starts_with("/access/roles") => {
            acl::answer(method, template, call)
        }
        _ => not_simulated(method, template),
    }
}

/// Writes a path of the access control list with one leading slash and none at the end.
pub(crate) fn acl_path(text: &str) -> String {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

fn login(call: &Call) -> Reply {
    let params = &call.params;
    let name = match params.get("realm") {
        Some(realm) => format!("{}@{realm}", params.text("username")),
        None => params.text("username").to_owned(),
    };
    let password = params.text("password");
    let world = call.core.world();
    let Some(user) = world.users.get(&name).filter(|user| user.is_active()) else {
        return Err(Refusal::LoginFailed);
    };
    if let Some(challenge) = params.get("tfa-challenge") {
        let expected = format!("!tfa!{CHALLENGE}");
        let answered = auth::verify_ticket(&world, challenge).is_some_and(|name| name == expected);
        let code = password.strip_prefix("totp:");
        if !answered || code.is_none() || code != user.totp.as_deref() {
            return Err(Refusal::LoginFailed);
        }
        return Ok(session(&world, &name).into());
    }
    if let Some(owner) = auth::verify_ticket(&world, password) {
        // A valid ticket is a password: for its own user, and that of root@pam for everybody.
        let good = owner == name || owner == "root@pam";
        if good && params.get("path").is_some() {
            return verified(call, &world, &name);
        }
        return if good {
            Ok(session(&world, &name).into())
        } else {
            Err(Refusal::LoginFailed)
        };
    }
    if !user
        .password
        .as_deref()
        .is_some_and(|stored| password_matches(stored, password))
    {
        return Err(Refusal::LoginFailed);
    }
    if user.totp.is_some() {
        return Ok(json!({
            "username": name, "NeedTFA": 1,
            "ticket": auth::ticket(&world, &format!("!tfa!{CHALLENGE}")),
            "CSRFPreventionToken": auth::csrf_token(&world, &name),
        })
        .into());
    }
    Ok(session(&world, &name).into())
}

/// Asked about a path the call opens no session: it says whether the owner of the ticket has one of the rights there.
fn verified(call: &Call, world: &World, name: &str) -> Reply {
    let who = Who::user(name);
    let held = rights::privileges(world, &who, &acl_path(call.params.text("path")));
    let wanted = call.params.list("privs");
    if wanted.iter().any(|privilege| held.contains_key(privilege)) {
        return Ok(json!({"username": name, "cap": capabilities(world, &who)}).into());
    }
    Err(Refusal::LoginFailed)
}

/// The second factors a user has, as JSON with its colons encoded.
const CHALLENGE: &str = r#"{"totp"%3Atrue}"#;

fn session(world: &World, name: &str) -> Value {
    json!({
        "username": name,
        "ticket": auth::ticket(world, name),
        "CSRFPreventionToken": auth::csrf_token(world, name),
        "cap": capabilities(world, &Who::user(name)),
    })
}

/// Rights by area, as the web interface wants them.
fn capabilities(world: &World, who: &Who) -> Value {
    let areas: [(&str, &[&str]); 7] = [
        ("vms", &["VM.", "Permissions.Modify"]),
        ("access", &["User.", "Group.", "Permissions.Modify"]),
        ("storage", &["Datastore.", "Permissions.Modify"]),
        ("nodes", &["Sys.", "Permissions.Modify"]),
        ("sdn", &["SDN.", "Permissions.Modify"]),
        ("dc", &["Sys.Audit", "Sys.Modify", "SDN."]),
        ("mapping", &["Mapping.", "Permissions.Modify"]),
    ];
    let mut caps: Map<String, Value> = areas
        .iter()
        .map(|(area, _)| ((*area).to_owned(), json!({})))
        .collect();
    for path in rights::paths(world) {
        let top = path
            .split('/')
            .nth(1)
            .filter(|top| !top.is_empty())
            .unwrap_or("dc");
        let wanted: Vec<_> = areas
            .iter()
            .filter(|(area, _)| match top {
                "pool" => matches!(*area, "vms" | "storage"),
                top => *area == top,
            })
            .collect();
        for privilege in rights::privileges(world, who, &path).into_keys() {
            for (area, prefixes) in &wanted {
                if prefixes.iter().any(|prefix| privilege.starts_with(prefix)) {
                    caps[*area][&privilege] = json!(1);
                }
            }
        }
    }
    Value::Object(caps)
}

fn change_password(call: &Call) -> Reply {
    let name = call.params.text("userid");
    let old = call.params.get("confirmation-password");
    let mut world = call.core.change();
    if !call.who.is_root() {
        let Some(old) = old else {
            let text = "password is required to modify user";
            return Err(Refusal::param("confirmation-password", text));
        };
        let own = world
            .users
            .get(&call.who.user)
            .and_then(|user| user.password.as_ref());
        if !own.is_some_and(|stored| password_matches(stored, old)) {
            return Err(Refusal::LoginFailed);
        }
    }
    let Some(user) = world.users.get_mut(name) else {
        return Err(Refusal::failed(format!("no such user ('{name}')")));
    };
    user.password = Some(hash_password(call.params.text("password")));
    Ok(Value::Null.into())
}

fn permissions(call: &Call) -> Reply {
    let world = call.core.world();
    let who = match call.params.get("userid") {
        None => call.who.clone(),
        Some(name) if name == call.who.id() => call.who.clone(),
        Some(name) => {
            call_gate(call, &world).need("/access", &["Sys.Audit"])?;
            Who::parse(name)
        }
    };
    let paths = match call.params.get("path") {
        Some(path) => [acl_path(path)].into(),
        None => rights::paths(&world),
    };
    let asked = call.params.get("path").is_some();
    let mut shown = Map::new();
    for path in paths {
        let held = rights::privileges(&world, &who, &path);
        if asked || !held.is_empty() {
            let flags: Map<String, Value> = held
                .into_iter()
                .map(|(privilege, propagate)| (privilege, json!(u8::from(propagate))))
                .collect();
            shown.insert(path, Value::Object(flags));
        }
    }
    Ok(Value::Object(shown).into())
}

fn call_gate<'a>(call: &'a Call, world: &'a World) -> crate::permission::Gate<'a> {
    crate::permission::Gate {
        world,
        who: &call.who,
        params: &call.params,
    }
}
