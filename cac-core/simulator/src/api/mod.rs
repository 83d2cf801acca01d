//! The calls: who may make them, in which order they are checked, and where each is worked on.

pub(crate) mod access;
mod acl;
pub(crate) mod change;
pub(crate) mod clone;
mod cluster;
pub(crate) mod create;
pub(crate) mod lxc;
mod nodes;
mod pools;
pub(crate) mod power;
mod series;
mod snapshot;
mod storage;
pub(crate) mod tasks;
mod unpack;
pub(crate) mod users;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::answer::{Refusal, Reply};
use crate::auth::{self, Credentials};
use crate::contract;
use crate::core::Core;
use crate::params::Params;
use crate::permission::Gate;
use crate::rights::Who;
use crate::task::{self, Order, Outcome, TaskFault, Worker};

/// A request as it arrived, before anything was checked.
pub(crate) struct Arrival<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a [String],
    pub(crate) params: Map<String, Value>,
    pub(crate) credentials: Credentials<'a>,
    pub(crate) fault: Option<TaskFault>,
}

/// A call that passed all checks of the front door.
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) who: Who,
    pub(crate) params: Params,
    pub(crate) node: String,
    fault: Option<TaskFault>,
}

impl Call {
    /// Starts a worker for the call; the answer is its UPID.
    pub(crate) fn work<F, Run>(&self, kind: &str, id: String, run: F) -> String
    where
        F: FnOnce(Worker) -> Run,
        Run: Future<Output = Outcome> + Send + 'static,
    {
        let order = Order {
            node: &self.node,
            kind,
            id,
            who: &self.who,
            fault: self.fault.clone(),
        };
        task::spawn(&self.core, order, run)
    }

    /// Looks at the world and the caller's rights together.
    pub(crate) fn with_gate<R>(&self, look: impl FnOnce(&Gate<'_>) -> R) -> R {
        let world = self.core.world();
        look(&Gate {
            world: &world,
            who: &self.who,
            params: &self.params,
        })
    }
}

/// Checks a request in the order pveproxy does and answers it.
pub(crate) async fn answer(core: &Arc<Core>, arrival: Arrival<'_>) -> Reply {
    let Some(path) = api_path(arrival.path)? else {
        let tail: Vec<&str> = arrival.path.iter().map(String::as_str).collect();
        let text = format!("no such file '/{}'", tail.join("/"));
        return Err(Refusal::Plain(500, text));
    };
    let open = is_open(arrival.method, path);
    let who = auth::caller(
        &core.world(),
        &arrival.credentials,
        arrival.method != "GET" && !open,
    );
    let who = match who {
        Err(_) if open && arrival.credentials.authorization.is_none() => None,
        other => other?,
    };
    if who.is_none() && !open {
        return Err(Refusal::Unauthenticated("No ticket"));
    }
    let shown = format!("/{}", path.join("/"));
    let Some(found) = contract::find(arrival.method, path) else {
        let text = format!("Method '{} {shown}' not implemented", arrival.method);
        return Err(Refusal::NotImplemented(text));
    };
    let raw = merge(arrival.params, &found.uri)?;
    let who = who.unwrap_or_else(|| Who::user(""));
    if found.endpoint.no_token == 1 && who.token.is_some() {
        let text = format!("URI '{shown}' not available with API token, need proper ticket.\n");
        return Err(Refusal::Forbidden(text));
    }
    Gate {
        world: &core.world(),
        who: &who,
        params: &Params::lossy(&raw),
    }
    .check(&found.endpoint.check)?;
    let node = node_of(core, found.endpoint.node == 1, &found.uri)?;
    let params = contract::check(&found.endpoint.params, &raw).map_err(Refusal::Params)?;
    let call = Call {
        core: Arc::clone(core),
        who,
        params,
        node,
        fault: arrival.fault,
    };
    dispatch(arrival.method, found.template, call).await
}

/// The path behind `/api2/json`; 501 when the format is missing.
fn api_path(path: &[String]) -> Result<Option<&[String]>, Refusal> {
    match path {
        [api, format, rest @ ..] if api == "api2" && format == "json" => Ok(Some(rest)),
        [api, rest @ ..] if api == "api2" => Err(Refusal::Plain(
            501,
            format!("no formatter for uri /, {}", rest.join("/")),
        )),
        _ => Ok(None),
    }
}

/// Calls that need no login.
fn is_open(method: &str, path: &[String]) -> bool {
    match path {
        [access, what] if access == "access" => match what.as_str() {
            "ticket" => matches!(method, "GET" | "POST"),
            "domains" => method == "GET",
            _ => false,
        },
        _ => false,
    }
}

/// Parameters of the path win; another value for one of them in query or body is an error.
fn merge(
    mut params: Map<String, Value>,
    uri: &Map<String, Value>,
) -> Result<Map<String, Value>, Refusal> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    for (name, value) in uri {
        if params
            .get(name)
            .is_some_and(|other| text(other) != text(value))
        {
            return Err(Refusal::param(
                name,
                "duplicate parameter (already defined in URI) with conflicting values!",
            ));
        }
        params.insert(name.clone(), value.clone());
    }
    Ok(params)
}

/// The node that has to answer. `localhost` is the one that was asked.
fn node_of(core: &Core, proxied: bool, uri: &Map<String, Value>) -> Result<String, Refusal> {
    let Some(name) = uri.get("node").and_then(Value::as_str) else {
        return Ok(local_node(core));
    };
    if name == "localhost" {
        return Ok(local_node(core));
    }
    match core.world().nodes.get(name) {
        _ if !proxied => return Ok(name.to_owned()),
        Some(node) if node.online => return Ok(name.to_owned()),
        Some(_) => return Err(Refusal::Bare(595, "No route to host".to_owned())),
        None => {}
    }
    let well_formed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let reason = if well_formed {
        "Temporary failure in name resolution"
    } else {
        "Name or service not known"
    };
    Err(Refusal::failed(format!(
        "hostname lookup '{name}' failed - failed to get address info for: {name}: {reason}"
    )))
}

/// The node behind the address that clients dial: the first by name.
fn local_node(core: &Core) -> String {
    let world = core.world();
    world.nodes.keys().next().cloned().unwrap_or_default()
}

async fn dispatch(method: &str, template: &str, call: Call) -> Reply {
    match template.split('/').nth(1).unwrap_or_default() {
        "" => Ok(index(
            "subdir",
            &["version", "cluster", "nodes", "storage", "access", "pools"],
        )),
        "version" => Ok(version().into()),
        "access" => access::answer(method, template, &call),
        "cluster" => cluster::answer(method, template, &call),
        "pools" => pools::answer(method, template, &call),
        "storage" => storage::answer(method, template, &call),
        _ if template.starts_with("/nodes/{node}/lxc") => lxc::answer(method, template, call).await,
        _ if template.starts_with("/nodes/{node}/tasks") => {
            tasks::answer(method, template, &call).await
        }
        _ if template.starts_with("/nodes/{node}/storage") => {
            storage::answer(method, template, &call)
        }
        "nodes" => nodes::answer(method, template, &call),
        _ => not_simulated(method, template),
    }
}

/// Part of Proxmox VE that the simulator knows by name only.
pub(crate) fn not_simulated(method: &str, template: &str) -> Reply {
    let text = format!("the simulator does not do {method} {template}");
    Err(Refusal::NotImplemented(text))
}

pub(crate) fn version() -> Value {
    json!({"version": "8.4.21", "release": "8.4", "repoid": "2606ac850d46da29"})
}

/// An index: a list of one-key objects.
pub(crate) fn index(key: &str, names: &[&str]) -> crate::answer::Output {
    let rows: Vec<Value> = names.iter().map(|name| json!({key: name})).collect();
    json!(rows).into()
}
