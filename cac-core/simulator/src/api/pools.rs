//! `/pools`: groups of containers and storages that rights are given on.

use serde_json::{Value, json};

use super::{Call, cluster, not_simulated};
use crate::answer::{Output, Refusal, Reply};
use crate::permission::Gate;
use crate::world::Pool;

pub(crate) fn answer(method: &str, template: &str, call: &Call) -> Reply {
    match (method, template) {
        ("GET", "/pools") => list(call),
        ("GET", "/pools/{poolid}") => one(call).map(Output::from),
        ("POST", "/pools") => create(call),
        ("PUT", "/pools" | "/pools/{poolid}") => change(call),
        ("DELETE", "/pools" | "/pools/{poolid}") => delete(call),
        _ => not_simulated(method, template),
    }
}

fn id(call: &Call) -> &str {
    call.params.text("poolid")
}

fn unknown(name: &str) -> Refusal {
    Refusal::failed(format!("pool '{name}' does not exist"))
}

fn list(call: &Call) -> Reply {
    if call.params.get("poolid").is_some() {
        let path = format!("/pool/{}", id(call));
        call.with_gate(|gate| gate.need(&path, &["Pool.Audit"]))?;
        return Ok(json!([one(call)?]).into());
    }
    let rows: Vec<Value> = call.with_gate(|gate| {
        let pools = gate.world.pools.iter();
        pools
            .filter(|(name, _)| {
                gate.has_any(&format!("/pool/{name}"), &["Pool.Audit", "Pool.Allocate"])
            })
            .map(|(name, pool)| head(name, pool))
            .collect()
    });
    Ok(json!(rows).into())
}

fn head(name: &str, pool: &Pool) -> Value {
    let mut row = json!({"poolid": name});
    if let Some(comment) = &pool.comment {
        row["comment"] = json!(comment);
    }
    row
}

fn one(call: &Call) -> Result<Value, Refusal> {
    let delay = u64::try_from(call.core.delay.overview.as_millis()).unwrap_or(u64::MAX);
    call.with_gate(|gate| {
        let name = id(call);
        let pool = gate.world.pools.get(name).ok_or_else(|| unknown(name))?;
        let mut row = head(name, pool);
        row["members"] = json!(members(gate, pool, delay));
        Ok(row)
    })
}

fn members(gate: &Gate<'_>, pool: &Pool, delay: u64) -> Vec<Value> {
    let guests = pool.guests.iter().filter_map(|vmid| {
        let guest = gate.world.containers.get(vmid)?;
        let mut row = cluster::guest_row(gate, *vmid, guest, delay);
        let fields = row.as_object_mut()?;
        for left_out in ["pool", "tags", "lock"] {
            fields.remove(left_out);
        }
        Some(row)
    });
    let storages = pool
        .storages
        .iter()
        .map(|name| json!({"type": "storage", "id": format!("storage/{name}"), "storage": name}));
    guests.chain(storages).collect()
}

fn create(call: &Call) -> Reply {
    let mut world = call.core.change();
    if world.pools.contains_key(id(call)) {
        let text = format!("create pool failed: pool '{}' already exists", id(call));
        return Err(Refusal::failed(text));
    }
    let pool = Pool {
        comment: call.params.get("comment").map(str::to_owned),
        ..Pool::default()
    };
    world.pools.insert(id(call).to_owned(), pool);
    Ok(Value::Null.into())
}

fn change(call: &Call) -> Reply {
    let failed = |text: String| Refusal::failed(format!("update pools failed: {text}"));
    let remove = call.params.flag("delete");
    let mut world = call.core.change();
    let name = id(call);
    if !world.pools.contains_key(name) {
        return Err(failed(format!("pool '{name}' does not exist")));
    }
    let guests = call.params.list("vms");
    for text in &guests {
        let vmid = text.parse().unwrap_or_default();
        match world.pool_of(vmid).map(str::to_owned) {
            Some(owner) if remove && owner == name => {}
            _ if remove => return Err(failed(format!("VM {vmid} is not a pool member"))),
            Some(owner) if owner == name => {
                return Err(failed(format!("VM {vmid} is already a pool member")));
            }
            Some(owner) if !call.params.flag("allow-move") => {
                let text = format!("VM {vmid} belongs already to pool '{owner}'");
                return Err(failed(format!("{text} and 'allow-move' is not set")));
            }
            _ => {}
        }
    }
    for pool in world.pools.values_mut() {
        pool.guests
            .retain(|vmid| !guests.contains(&vmid.to_string()));
    }
    let Some(pool) = world.pools.get_mut(name) else {
        return Err(unknown(name));
    };
    if let Some(comment) = call.params.get("comment") {
        pool.comment = Some(comment.to_owned());
    }
    if !remove {
        pool.guests
            .extend(guests.iter().filter_map(|t| t.parse::<u32>().ok()));
    }
    for storage in call.params.list("storage") {
        if remove {
            pool.storages.remove(&storage);
        } else {
            pool.storages.insert(storage);
        }
    }
    Ok(Value::Null.into())
}

fn delete(call: &Call) -> Reply {
    let name = id(call);
    let mut world = call.core.change();
    let Some(pool) = world.pools.get(name) else {
        return Err(Refusal::failed(format!(
            "delete pool failed: pool '{name}' does not exist"
        )));
    };
    let guest = pool.guests.first().map(|vmid| format!("VM {vmid}"));
    let storage = pool.storages.first().map(|one| format!("storage {one}"));
    if let Some(member) = guest.or(storage) {
        let text = format!("delete pool failed: pool '{name}' is not empty (contains {member})");
        return Err(Refusal::failed(text));
    }
    world.pools.remove(name);
    let path = format!("/pool/{name}");
    world.acl.retain(|entry| entry.path != path);
    Ok(Value::Null.into())
}
