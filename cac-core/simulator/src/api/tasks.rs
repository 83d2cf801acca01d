//! Tasks as the API shows them: list, status, log, abort.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Call, index, not_simulated};
use crate::answer::{Output, Refusal, Reply};
use crate::rights::Who;
use crate::task::is_upid;
use crate::world::Task;

pub(crate) async fn answer(method: &str, template: &str, call: &Call) -> Reply {
    match (method, template.trim_start_matches("/nodes/{node}/tasks")) {
        ("GET", "") => Ok(list(call)),
        ("GET", "/{upid}") => Ok(index("name", &["log", "status"])),
        ("GET", "/{upid}/status") => status(call),
        ("GET", "/{upid}/log") => log(call),
        ("DELETE", "/{upid}") => abort(call).await,
        _ => not_simulated(method, template),
    }
}

/// The facts of a task that every answer has.
fn row(task: &Task) -> Value {
    let who = Who::parse(&task.user);
    let mut row = json!({
        "upid": task.upid, "node": task.node, "pid": task.pid, "pstart": task.pstart,
        "starttime": task.starttime, "type": task.kind, "id": task.id, "user": who.user,
    });
    if let Some(token) = who.token {
        row["tokenid"] = json!(token);
    }
    row
}

/// The same task belongs to its token and to the token's user, not to another token.
fn owns(who: &Who, task_user: &str) -> bool {
    let owner = Who::parse(task_user);
    owner.user == who.user && (who.token.is_none() || who.token == owner.token)
}

fn allowed(call: &Call, privilege: &str) -> Result<String, Refusal> {
    let upid = call.params.text("upid").to_owned();
    if !is_upid(&upid) {
        return Err(Refusal::param("upid", "unable to parse worker upid"));
    }
    let user = upid.split(':').nth(7).unwrap_or_default();
    if !owns(&call.who, user) {
        let path = format!("/nodes/{}", call.node);
        call.with_gate(|gate| gate.need(&path, &[privilege]))?;
    }
    Ok(upid)
}

fn find<R>(call: &Call, upid: &str, show: impl FnOnce(&Task) -> R) -> Option<R> {
    let world = call.core.world();
    let task = world.tasks.iter().rev().find(|task| task.upid == upid);
    task.map(show)
}

fn status(call: &Call) -> Reply {
    let upid = allowed(call, "Sys.Audit")?;
    let shown = find(call, &upid, |task| {
        let mut row = row(task);
        match &task.status {
            None => row["status"] = json!("running"),
            Some(exit) => {
                row["status"] = json!("stopped");
                row["exitstatus"] = json!(exit);
            }
        }
        row
    });
    shown
        .map(Output::from)
        .ok_or_else(|| Refusal::param("upid", "no such task"))
}

fn log(call: &Call) -> Reply {
    let upid = allowed(call, "Sys.Audit")?;
    let Some(lines) = find(call, &upid, |task| task.log.clone()) else {
        // 8.4 sends one line here, not a list of lines.
        let line = json!({"n": 1, "t": "unable to open file - No such file or directory"});
        return Ok(Output::with_total(line, 1));
    };
    if call.params.flag("download") {
        return Ok(Output {
            text: Some(lines.iter().map(|line| format!("{line}\n")).collect()),
            ..Output::default()
        });
    }
    if lines.is_empty() {
        return Ok(Output::with_total(json!([{"n": 1, "t": "no content"}]), 1));
    }
    let (start, limit) = page(call);
    let rows: Vec<Value> = lines
        .iter()
        .enumerate()
        .skip(start)
        .take(limit)
        .map(|(number, line)| json!({"n": number + 1, "t": line}))
        .collect();
    Ok(Output::with_total(json!(rows), lines.len()))
}

/// Rows to skip and rows to show; a limit of 0 shows all.
fn page(call: &Call) -> (usize, usize) {
    let number = |name, default| {
        call.params
            .number(name)
            .map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    let limit = match number("limit", 50) {
        0 => usize::MAX,
        limit => limit,
    };
    (number("start", 0), limit)
}

/// Aborting ends when the worker has gone, as the real call does.
async fn abort(call: &Call) -> Reply {
    let upid = allowed(call, "Sys.Modify")?;
    call.core.aborts.abort(&upid);
    for _ in 0..250 {
        if find(call, &upid, |task| task.status.is_some()) != Some(false) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Value::Null.into())
}

fn list(call: &Call) -> Output {
    let everything = call.with_gate(|gate| gate.has(&format!("/nodes/{}", call.node), "Sys.Audit"));
    let source = call.params.get("source").unwrap_or("archive");
    let world = call.core.world();
    let rows: Vec<Value> = world
        .tasks
        .iter()
        .rev()
        .filter(|task| task.node == call.node)
        .filter(|task| everything || owns(&call.who, &task.user))
        .filter(|task| match source {
            "archive" => task.status.is_some(),
            "active" => task.status.is_none(),
            _ => true,
        })
        .filter(|task| wanted(call, task))
        .map(list_row)
        .collect();
    let (start, limit) = page(call);
    let total = rows.len();
    let shown: Vec<Value> = rows.into_iter().skip(start).take(limit).collect();
    Output::with_total(json!(shown), total)
}

fn list_row(task: &Task) -> Value {
    let mut row = row(task);
    match (&task.status, task.endtime) {
        (Some(status), Some(end)) => {
            row["status"] = json!(status);
            row["endtime"] = json!(end);
        }
        _ => {
            row["status"] = json!("RUNNING");
            row["saved"] = json!("0");
        }
    }
    row
}

/// The filters of the list.
fn wanted(call: &Call, task: &Task) -> bool {
    let params = &call.params;
    let is = |name: &str, value: &str| params.get(name).is_none_or(|wanted| wanted == value);
    let time = |name: &str| params.number(name);
    let exit = task.status.as_deref().unwrap_or_default();
    let kind = match exit {
        "OK" => "ok",
        text if text.starts_with("WARNINGS: ") => "warning",
        "unexpected status" => "unknown",
        _ => "error",
    };
    let statuses = params.list("statusfilter");
    is("vmid", &task.id)
        && is("typefilter", &task.kind)
        && params
            .get("userfilter")
            .is_none_or(|part| task.user.contains(part))
        && (!params.flag("errors") || kind != "ok")
        && (statuses.is_empty() || statuses.iter().any(|status| status == kind))
        && time("since").is_none_or(|since| task.starttime >= since)
        && time("until").is_none_or(|until| task.starttime <= until)
}

/// Recent tasks of all nodes, for `/cluster/tasks`.
pub(crate) fn recent(call: &Call) -> Output {
    let world = call.core.world();
    let gate = crate::permission::Gate {
        world: &world,
        who: &call.who,
        params: &call.params,
    };
    let rows: Vec<Value> = world
        .tasks
        .iter()
        .rev()
        .filter(|task| {
            owns(&call.who, &task.user) || gate.has(&format!("/nodes/{}", task.node), "Sys.Audit")
        })
        .take(25)
        .map(|task| {
            let mut row = list_row(task);
            if let Some(fields) = row.as_object_mut() {
                fields.remove("pid");
                fields.remove("pstart");
                if task.status.is_some() {
                    fields.insert("saved".to_owned(), json!("1"));
                } else {
                    fields.remove("status");
                }
            }
            row
        })
        .collect();
    json!(rows).into()
}
