//! Pages of containers: the list, one of them, the form for a new one.

use std::collections::BTreeMap;

use cac_core::container::{Container, Filter};
use cac_core::placement::Os;
use cac_core::{Actor, Config, Core, node, user};
use poem_openapi::types::ToJSON as _;
use serde_json::{Value, json};

use super::render;
use crate::error::Problem;

/// What a refused form sent, and why it was refused.
pub(crate) type Refused<'a> = (&'a BTreeMap<String, String>, &'a Problem);

pub(crate) async fn list(
    core: &Core,
    who: &Actor,
    rows: &[Container],
    total: i64,
    filter: &Filter,
) -> String {
    let heading = match &filter.user {
        Some(user) => format!("Containers of {user}"),
        None if filter.all => "Everyone’s containers".to_owned(),
        None => "Your containers".to_owned(),
    };
    let notice = (who.admin && !user::has_service_token(core).await).then_some(
        "Your admin rights end 15 minutes after you signed in: set PROXMOX_TOKEN_ID and PROXMOX_TOKEN_SECRET \
         (or the login node's token), so that they can be looked up again.",
    );
    let offset = i64::from(filter.offset);
    let shown = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let before = (offset > 0).then(|| link(filter, filter.offset.saturating_sub(filter.limit)));
    let after = (offset + shown < total && shown > 0)
        .then(|| link(filter, filter.offset.saturating_add(filter.limit)));
    let containers: Vec<Value> = rows.iter().map(|row| shape(&core.config, row)).collect();
    render(
        "containers.html",
        Some(who),
        json!({
            "heading": heading, "notice": notice, "containers": containers, "total": total, "offset": offset,
            "before": before, "after": after,
        }),
    )
}

fn link(filter: &Filter, offset: u32) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::from("/containers?"));
    if filter.all {
        query.append_pair("all", "true");
    }
    if let Some(user) = &filter.user {
        query.append_pair("user", user);
    }
    query
        .append_pair("limit", &filter.limit.to_string())
        .append_pair("offset", &offset.to_string());
    query.finish()
}

pub(crate) fn one(core: &Core, who: &Actor, row: &Container, status: Option<&str>) -> String {
    let mut shown = shape(&core.config, row);
    shown["status"] = status.into();
    render("container.html", Some(who), json!({"c": shown}))
}

pub(crate) async fn form(core: &Core, who: &Actor, refused: Option<Refused<'_>>) -> String {
    let nodes = node::all(core).await.unwrap_or_default();
    let labels: Vec<_> = nodes
        .iter()
        .filter_map(|node| node.ai_container.as_deref())
        .collect();
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    let limits = &core.config.containers;
    let errors = refused.and_then(|(_, problem)| problem.errors.clone());
    render(
        "new.html",
        Some(who),
        json!({
            "domain": core.config.domain, "systems": Os::names(), "lowest_port": limits.lowest_web_port.0.max(80),
            "labels": labels, "nodes": names, "cores": limits.cores, "memory": limits.memory, "disk": limits.disk,
            "sent": refused.map(|(sent, _)| sent.clone()).unwrap_or_default(),
            "problem": refused.map(|(_, problem)| problem.to_json()),
            "errors": errors.unwrap_or_default(),
        }),
    )
}

/// A container as the templates take it.
fn shape(config: &Config, row: &Container) -> Value {
    let state = row
        .state
        .as_deref()
        .unwrap_or(if row.ipv4_address.is_some() {
            "ready"
        } else {
            "no address yet"
        });
    let reach = config.reach();
    let sites: Vec<_> = row
        .services
        .iter()
        .filter(|service| service.external_hostname.is_some())
        .filter_map(|service| reach.service(row, service))
        .collect();
    let services: Vec<_> = row
        .services
        .iter()
        .map(|service| {
            json!({
                "type": service.r#type, "internal_port": service.internal_port,
                "reached": reach.service(row, service),
            })
        })
        .collect();
    json!({
        "id": row.id, "hostname": row.hostname, "username": row.username, "os_release": row.os_release,
        "container_id": row.container_id, "ipv4_address": row.ipv4_address, "mac_address": row.mac_address,
        "state": row.state, "shown_state": state, "job_id": row.job_id, "template": row.template,
        "cores": row.cores, "memory": row.memory, "disk": row.disk, "sites": sites, "ssh": reach.ssh(row),
        "services": services,
    })
}
