//! `/access/users` and `/access/groups`: lists, single ones, changes, API tokens.

use serde_json::{Map, Value, json};

use super::{Call, not_simulated};
use crate::answer::{Output, Refusal, Reply};
use crate::permission::Gate;
use crate::world::{AclKind, Token, User, World, hash_password, random_uuid};

/// Texts that a user may have.
const FACTS: [&str; 5] = ["comment", "email", "firstname", "lastname", "keys"];
pub(crate) const REALMS: [&str; 2] = ["pam", "pve"];

pub(crate) fn answer(method: &str, template: &str, call: &Call) -> Reply {
    let below = template
        .trim_start_matches("/access/users")
        .trim_start_matches("/{userid}");
    match (method, template, below) {
        ("GET", "/access/groups", _) => Ok(groups(call)),
        ("POST", "/access/groups", _) => create_group(call),
        ("GET", "/access/groups/{groupid}", _) => group(call),
        ("PUT", "/access/groups/{groupid}", _) => change_group(call),
        ("DELETE", "/access/groups/{groupid}", _) => delete_group(call),
        ("GET", "/access/users", _) => Ok(users(call)),
        ("POST", "/access/users", _) => create_user(call),
        ("GET", _, "") => with_user(call, |user| Ok(shown(user, false).into())),
        ("PUT", _, "") => change_user(call),
        ("DELETE", _, "") => Ok(delete_user(call)),
        ("GET", _, "/tfa") => with_user(call, |user| {
            let kinds: &[&str] = if user.totp.is_some() { &["totp"] } else { &[] };
            Ok(json!({"user": kinds}).into())
        }),
        ("GET", _, "/token") => with_user(call, |user| Ok(token_rows(user))),
        ("GET", _, "/token/{tokenid}") => {
            with_user(call, |user| token(call, user).map(|t| token_row(t).into()))
        }
        ("POST", _, "/token/{tokenid}") => create_token(call),
        ("PUT", _, "/token/{tokenid}") => change_token(call),
        ("DELETE", _, "/token/{tokenid}") => delete_token(call),
        _ => not_simulated(method, template),
    }
}

fn id(call: &Call) -> &str {
    call.params.text("userid")
}

fn with_user(call: &Call, show: impl FnOnce(&User) -> Reply) -> Reply {
    let world = call.core.world();
    let user = world.users.get(id(call));
    show(user.ok_or_else(|| Refusal::failed(format!("no such user ('{}')", id(call))))?)
}

/// A user: one alone has lists, a row of the list has text with commas.
fn shown(user: &User, row: bool) -> Value {
    let mut shown = json!({"enable": u8::from(user.enable), "expire": user.expire});
    for (name, text) in &user.facts {
        shown[name] = json!(text);
    }
    let groups: Vec<&str> = user.groups.iter().map(String::as_str).collect();
    let tokens: Map<String, Value> = user
        .tokens
        .iter()
        .map(|(name, token)| (name.clone(), token_row(token)))
        .collect();
    if row {
        shown["groups"] = json!(groups.join(","));
        shown["tokens"] = if tokens.is_empty() {
            Value::Null
        } else {
            token_rows(user).data
        };
    } else {
        shown["groups"] = json!(groups);
        shown["tokens"] = if tokens.is_empty() {
            Value::Null
        } else {
            Value::Object(tokens)
        };
    }
    shown
}

fn sees(gate: &Gate<'_>, name: &str, user: &User) -> bool {
    let rights = ["User.Modify", "Sys.Audit"];
    let group = |group: &String| gate.has_any(&format!("/access/groups/{group}"), &rights);
    gate.who.id() == name
        || gate.has_any("/access/groups", &rights)
        || user.groups.iter().any(group)
}

fn users(call: &Call) -> Output {
    let full = call.params.flag("full");
    let enabled = call.params.get("enabled");
    let rows: Vec<Value> = call.with_gate(|gate| {
        let users = gate.world.users.iter();
        users
            .filter(|(name, user)| sees(gate, name, user))
            .filter(|(_, user)| enabled.is_none_or(|wanted| (wanted == "1") == user.enable))
            .map(|(name, user)| {
                let mut row = shown(user, true);
                row["userid"] = json!(name);
                row["realm-type"] = json!(name.rsplit_once('@').map_or("", |(_, realm)| realm));
                if let Some(fields) = row.as_object_mut().filter(|_| !full) {
                    fields.remove("groups");
                    fields.remove("tokens");
                }
                row
            })
            .collect()
    });
    json!(rows).into()
}

/// Takes over what the call says of a user; the groups must be there.
fn fill(call: &Call, world: &World, user: &mut User) -> Result<(), String> {
    let groups = call.params.list("groups");
    if let Some(missing) = groups
        .iter()
        .find(|group| !world.groups.contains_key(*group))
    {
        return Err(format!("no such group '{missing}'"));
    }
    if call.params.get("groups").is_some() {
        if !call.params.flag("append") {
            user.groups.clear();
        }
        user.groups.extend(groups);
    }
    for name in FACTS {
        match call.params.get(name) {
            Some("") => drop(user.facts.remove(name)),
            Some(text) => drop(user.facts.insert(name.to_owned(), text.to_owned())),
            None => {}
        }
    }
    if let Some(enable) = call.params.get("enable") {
        user.enable = enable == "1";
    }
    if let Some(expire) = call.params.number("expire") {
        user.expire = expire;
    }
    Ok(())
}

fn create_user(call: &Call) -> Reply {
    let failed = |text: String| Refusal::failed(format!("create user failed: {text}"));
    let name = id(call);
    let realm = name.rsplit_once('@').map_or("", |(_, realm)| realm);
    let mut world = call.core.change();
    if world.users.contains_key(name) {
        return Err(failed(format!("user '{name}' already exists")));
    }
    if !REALMS.contains(&realm) {
        return Err(failed(format!("auth domain '{realm}' does not exist")));
    }
    let mut user = User {
        enable: true,
        password: call.params.get("password").map(hash_password),
        ..User::default()
    };
    fill(call, &world, &mut user).map_err(failed)?;
    world.users.insert(name.to_owned(), user);
    Ok(Value::Null.into())
}

fn change_user(call: &Call) -> Reply {
    let failed = |text: String| Refusal::failed(format!("update user failed: {text}"));
    let name = id(call);
    let mut world = call.core.change();
    let Some(mut user) = world.users.get(name).cloned() else {
        return Err(failed(format!("no such user ('{name}')")));
    };
    fill(call, &world, &mut user).map_err(failed)?;
    world.users.insert(name.to_owned(), user);
    Ok(Value::Null.into())
}

/// Deleting an unknown user is fine, as in reality.
fn delete_user(call: &Call) -> Output {
    delete(&mut call.core.change(), id(call));
    Value::Null.into()
}

pub(crate) fn delete(world: &mut World, name: &str) {
    let tokens = format!("{name}!");
    world.users.remove(name);
    world.acl.retain(|entry| match entry.kind {
        AclKind::User => entry.who != name,
        AclKind::Token => !entry.who.starts_with(&tokens),
        AclKind::Group => true,
    });
}

fn groups(call: &Call) -> Output {
    let rights = ["User.Modify", "Sys.Audit", "Group.Allocate"];
    let rows: Vec<Value> = call.with_gate(|gate| {
        let groups = gate.world.groups.iter();
        groups
            .filter(|(name, _)| gate.has_any(&format!("/access/groups/{name}"), &rights))
            .map(|(name, comment)| {
                let users = members(gate.world, name).join(",");
                let mut row = json!({"groupid": name, "users": users});
                if !comment.is_empty() {
                    row["comment"] = json!(comment);
                }
                row
            })
            .collect()
    });
    json!(rows).into()
}

fn members<'a>(world: &'a World, group: &str) -> Vec<&'a str> {
    let users = world.users.iter();
    users
        .filter(|(_, user)| user.groups.contains(group))
        .map(|(name, _)| name.as_str())
        .collect()
}

fn group(call: &Call) -> Reply {
    let name = call.params.text("groupid");
    let world = call.core.world();
    let Some(comment) = world.groups.get(name) else {
        return Err(Refusal::failed(format!("group '{name}' does not exist")));
    };
    let mut row = json!({"members": members(&world, name)});
    if !comment.is_empty() {
        row["comment"] = json!(comment);
    }
    Ok(row.into())
}

fn create_group(call: &Call) -> Reply {
    let name = call.params.text("groupid");
    let mut world = call.core.change();
    if world.groups.contains_key(name) {
        let text = format!("create group failed: group '{name}' already exists");
        return Err(Refusal::failed(text));
    }
    let comment = call.params.text("comment").to_owned();
    world.groups.insert(name.to_owned(), comment);
    Ok(Value::Null.into())
}

fn change_group(call: &Call) -> Reply {
    let name = call.params.text("groupid");
    let mut world = call.core.change();
    let Some(comment) = world.groups.get_mut(name) else {
        let text = format!("update group failed: group '{name}' does not exist");
        return Err(Refusal::failed(text));
    };
    if let Some(text) = call.params.get("comment") {
        text.clone_into(comment);
    }
    Ok(Value::Null.into())
}

fn delete_group(call: &Call) -> Reply {
    let name = call.params.text("groupid");
    let mut world = call.core.change();
    if world.groups.remove(name).is_none() {
        let text = format!("delete group failed: group '{name}' does not exist");
        return Err(Refusal::failed(text));
    }
    for user in world.users.values_mut() {
        user.groups.remove(name);
    }
    world
        .acl
        .retain(|entry| entry.kind != AclKind::Group || entry.who != name);
    Ok(Value::Null.into())
}

fn token_row(token: &Token) -> Value {
    let mut row = json!({"privsep": u8::from(token.privsep), "expire": token.expire});
    if let Some(comment) = &token.comment {
        row["comment"] = json!(comment);
    }
    row
}

fn token_rows(user: &User) -> Output {
    let rows: Vec<Value> = user
        .tokens
        .iter()
        .map(|(name, token)| {
            let mut row = token_row(token);
            row["tokenid"] = json!(name);
            row
        })
        .collect();
    json!(rows).into()
}

fn no_token(call: &Call) -> Refusal {
    let token = call.params.text("tokenid");
    Refusal::failed(format!("no such token '{token}' for user '{}'", id(call)))
}

fn token<'a>(call: &Call, user: &'a User) -> Result<&'a Token, Refusal> {
    let token = user.tokens.get(call.params.text("tokenid"));
    token.ok_or_else(|| no_token(call))
}

/// What the caller set, as text, as the real answer has it.
fn token_info(call: &Call) -> Value {
    let mut info = json!({"privsep": 1});
    for name in ["privsep", "expire", "comment"] {
        if let Some(text) = call.params.get(name) {
            info[name] = json!(text);
        }
    }
    info
}

fn create_token(call: &Call) -> Reply {
    let name = call.params.text("tokenid");
    let secret = random_uuid();
    let mut world = call.core.change();
    let Some(user) = world.users.get_mut(id(call)) else {
        return Err(Refusal::failed(format!("no such user ('{}')", id(call))));
    };
    if user.tokens.contains_key(name) {
        return Err(Refusal::param("tokenid", "Token already exists."));
    }
    let token = Token {
        secret: secret.clone(),
        privsep: call.params.get("privsep") != Some("0"),
        expire: call.params.number("expire").unwrap_or_default(),
        comment: call.params.get("comment").map(str::to_owned),
    };
    user.tokens.insert(name.to_owned(), token);
    Ok(json!({
        "full-tokenid": format!("{}!{name}", id(call)), "value": secret, "info": token_info(call),
    })
    .into())
}

fn change_token(call: &Call) -> Reply {
    let mut world = call.core.change();
    let user = world.users.get_mut(id(call));
    let token = user.and_then(|user| user.tokens.get_mut(call.params.text("tokenid")));
    let Some(token) = token else {
        return Err(no_token(call));
    };
    if let Some(text) = call.params.get("privsep") {
        token.privsep = text == "1";
    }
    if let Some(expire) = call.params.number("expire") {
        token.expire = expire;
    }
    if let Some(text) = call.params.get("comment") {
        token.comment = Some(text.to_owned());
    }
    Ok(token_row(token).into())
}

fn delete_token(call: &Call) -> Reply {
    let name = call.params.text("tokenid");
    let full = format!("{}!{name}", id(call));
    let mut world = call.core.change();
    let user = world.users.get_mut(id(call));
    if user.and_then(|user| user.tokens.remove(name)).is_none() {
        return Err(no_token(call));
    }
    world
        .acl
        .retain(|entry| entry.kind != AclKind::Token || entry.who != full);
    Ok(Value::Null.into())
}
