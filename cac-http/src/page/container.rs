//! Pages of containers: the list, one of them, the form for a new one.

use std::collections::BTreeSet;

use cac_core::container::{self, Container, Filter, Size};
use cac_core::placement::{self, Os};
use cac_core::pve::LxcStatus;
use cac_core::quota::{self, Quota};
use cac_core::reach::Reach;
use cac_core::{Actor, Config, Core, audit, node, routes, user};
use poem_openapi::types::ToJSON as _;
use serde_json::{Value, json};

use super::{Refused, chart, part, render};
use crate::auth::Signed;
use crate::error::Problem;

/// Entries of the audit log that a container's page shows.
const HISTORY: u32 = 15;

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
    let set = [
        ("all", filter.all.then(|| "true".to_owned())),
        ("user", filter.user.clone()),
        ("search", filter.search.clone()),
    ];
    let page = (filter.limit, filter.offset);
    let live = container::live(core, rows).await;
    let containers: Vec<Value> = rows
        .iter()
        .map(|row| line(&core.config, row, live.get(&row.id)))
        .collect();
    render(
        "containers.html",
        Some(who),
        json!({
            "here": "/containers", "heading": heading, "notice": notice, "containers": containers,
            "pages": part::pages("/containers", &set, page, (rows.len(), total)), "all": filter.all, "owner": filter.user,
            "search": filter.search, "everything": part::address("/containers", &set[..2], &[]),
        }),
    )
}

/// One container, and what was wrong with the form that was sent about it.
pub(crate) async fn one(
    core: &Core,
    who: &Actor,
    row: &Container,
    frame: &str,
    refused: Option<&Problem>,
) -> String {
    let frame = match container::TIMEFRAMES.contains(&frame) {
        true => frame,
        false => "hour",
    };
    let made = row.container_id.is_some() && row.node_id.is_some();
    let usage = async {
        match made {
            true => bounded(container::usage(core, who, row.id, frame)).await,
            false => None,
        }
    };
    let snapshots = async {
        match made {
            true => bounded(container::snapshots(core, who, row.id)).await,
            false => None,
        }
    };
    let ids = row.services.iter().map(|service| service.id).collect();
    let (live, usage, snapshots, history, standings) = tokio::join!(
        container::live(core, std::slice::from_ref(row)),
        usage,
        snapshots,
        audit::of_container(core, who, row.id, HISTORY),
        routes::standings(core, ids),
    );
    let standings = standings.unwrap_or_default();
    let node = match row.node_id {
        Some(id) => node::find(core, id).await.ok().map(|node| node.name),
        None => None,
    };
    let mut shown = shape(&core.config, row, live.get(&row.id));
    shown["node"] = node.into();
    for service in shown["services"].as_array_mut().into_iter().flatten() {
        let id = service["id"].as_i64().unwrap_or_default();
        service["standing"] = json!(standings.get(&id));
    }
    let snapshots = snapshots.map(|rows| {
        let shape = |row: &cac_core::pve::Snapshot| {
            let at = row.snaptime.and_then(|at| i64::try_from(at).ok());
            let at = at.and_then(|at| chrono::DateTime::from_timestamp(at, 0));
            json!({"name": row.name, "description": row.description, "at": at})
        };
        rows.iter().map(shape).collect::<Vec<_>>()
    });
    let (entries, count) = history.unwrap_or_default();
    render(
        "container.html",
        Some(who),
        json!({
            "here": "/containers", "c": shown, "made": made, "snapshots": snapshots, "frame": frame,
            "frames": container::TIMEFRAMES, "charts": usage.as_deref().map(chart::charts), "history": entries, "history_count": count,
            "problem": refused.map(|problem| problem.to_json()),
        }),
    )
}

/// What comes from Proxmox VE is waited for as long as a node may be away, no longer.
async fn bounded<T>(asked: impl Future<Output = cac_core::Result<T>>) -> Option<T> {
    tokio::time::timeout(node::AWAY, asked).await.ok()?.ok()
}

/// What a form about a container does; a browser is told why it was refused on the container's page.
pub(crate) async fn or_page<T>(
    who: &Signed,
    id: i64,
    done: impl Future<Output = crate::error::Result<T>>,
) -> crate::error::Result<T> {
    let mut error = match done.await {
        Err(error) if who.html => error,
        done => return done,
    };
    error.0.problem.request_id = Some(who.request.0.clone());
    Err(match container::find(&who.core, &who.actor, id).await {
        Ok(row) => {
            // Large, and only needed where something was refused.
            let page = Box::pin(one(
                &who.core,
                &who.actor,
                &row,
                "hour",
                Some(&error.0.problem),
            ))
            .await;
            error.with_page(page)
        }
        Err(_) => error,
    })
}

pub(crate) async fn form(core: &Core, who: &Actor, refused: Option<Refused<'_>>) -> String {
    let (nodes, offers, suggestion, quota) = tokio::join!(
        node::all(core),
        placement::offered(core),
        container::suggest(core),
        quota::find(core, who, &who.username),
    );
    let nodes = nodes.unwrap_or_default();
    let nodes = nodes.iter().filter(|node| node.enabled);
    let labels: Vec<_> = nodes
        .clone()
        .filter_map(|node| node.ai_container.as_deref())
        .collect();
    let names: Vec<_> = nodes.map(|node| node.name.as_str()).collect();
    let offers = offers.unwrap_or_default();
    let offered: BTreeSet<&str> = offers
        .iter()
        .flat_map(|offer| offer.os_releases.iter().map(String::as_str))
        .collect();
    let templates: Vec<Value> = offers
        .iter()
        .map(|offer| json!({"id": offer.template.id(), "node": offer.node}))
        .collect();
    let limits = &core.config.containers;
    let words = |cores: u32, memory: u32, disk: u32| {
        let memory = match memory % 1024 {
            0 => format!("{} GiB", memory / 1024),
            _ => format!("{memory} MiB"),
        };
        let s = if cores == 1 { "" } else { "s" };
        format!("{cores} core{s}, {memory}, {disk} GiB disk")
    };
    let size =
        |size: &Size| json!({"name": size.name, "text": words(size.cores, size.memory, size.disk)});
    let sizes: Vec<_> = limits.sizes.0.iter().map(size).collect();
    render(
        "new.html",
        Some(who),
        json!({
            "here": "/containers/new", "domain": core.config.domain, "systems": Os::names(), "offered": offered, "templates": templates,
            "lowest_port": limits.lowest_web_port.0.max(80), "labels": labels, "nodes": names, "sizes": sizes,
            "standard": words(limits.cores, limits.memory, limits.disk), "protocols": limits.protocols.names(),
            "suggestion": suggestion.unwrap_or_default(), "meters": quota.as_ref().map(meters).unwrap_or_default(),
            "known": FIELDS, "sent": refused.map(|(sent, _)| sent.clone()).unwrap_or_default(),
            "problem": refused.map(|(_, problem)| problem.to_json()),
        }),
    )
}

/// Fields of the form that a message can lead to.
const FIELDS: [&str; 11] = [
    "hostname",
    "osRelease",
    "httpPort",
    "cores",
    "memory",
    "disk",
    "sshPublicKey",
    "additionalProtocols",
    "template",
    "node",
    "aiContainer",
];

/// What is limited, and how much of it is used.
fn meters(quota: &Quota) -> Vec<Value> {
    let (limits, used) = (quota.limits, quota.used);
    [
        (
            "containers",
            "containers",
            limits.containers,
            used.containers,
        ),
        ("cores", "cores", limits.cores, used.cores),
        ("memory", "MiB of memory", limits.memory, used.memory),
        ("disk", "GiB of disk", limits.disk, used.disk),
        ("services", "services", limits.services, used.services),
        ("ports", "external ports", limits.ports, used.ports),
    ]
    .into_iter()
    .filter_map(|(name, unit, limit, used)| {
        Some(json!({"name": name, "unit": unit, "limit": limit?, "used": used}))
    })
    .collect()
}

/// A container as the list takes it.
fn line(config: &Config, row: &Container, live: Option<&LxcStatus>) -> Value {
    let reach = config.reach();
    let live = live.map(|live| live.status.as_str());
    json!({
        "id": row.id, "hostname": row.hostname, "username": row.username, "os_release": row.os_release, "state": row.state,
        "shown_state": state(row, live), "job_id": row.job_id, "sites": sites(&reach, row), "ssh": reach.ssh(row),
        "code": reach.code(row), "unverified": row.unverified_since.is_some(), "mismatch": row.identity_mismatch_at.is_some(),
    })
}

/// The word for how it is: what a job does with it, else what the node says of it.
fn state<'a>(row: &'a Container, live: Option<&'a str>) -> &'a str {
    match (row.state.as_deref(), live) {
        (Some(state), _) => state,
        (None, Some("running")) if row.ipv4_address.is_none() => "no address yet",
        (None, Some(live)) => live,
        (None, None) if row.ipv4_address.is_none() => "no address yet",
        (None, None) => "unknown",
    }
}

/// The addresses of its websites.
fn sites(reach: &Reach, row: &Container) -> Vec<String> {
    let mut sites: Vec<_> = row
        .services
        .iter()
        .filter(|service| service.external_hostname.is_some())
        .filter_map(|service| reach.service(row, service))
        .collect();
    // Without a proxy several names have one address.
    sites.dedup();
    sites
}

/// A container as the templates of single ones take it.
pub(super) fn shape(config: &Config, row: &Container, live: Option<&LxcStatus>) -> Value {
    let live = live.map(|live| live.status.as_str());
    let reach = config.reach();
    let services: Vec<_> = row
        .services
        .iter()
        .map(|service| {
            let name = service.external_hostname.as_deref();
            let name = name.filter(|name| reach.site(name).is_none());
            json!({
                "name": name.map(|name| reach.full_name(name)), "id": service.id, "type": service.r#type, "internal_port": service.internal_port,
                "tls": service.tls.unwrap_or(false), "https": service.https, "max_body": service.max_body, "timeout": service.timeout,
                "external_hostname": service.external_hostname, "reached": reach.service(row, service),
            })
        })
        .collect();
    json!({
        "id": row.id, "hostname": row.hostname, "username": row.username, "os_release": row.os_release,
        "address_problem": row.address_problem.as_ref().map(ToString::to_string),
        "container_id": row.container_id, "ipv4_address": row.ipv4_address, "mac_address": row.mac_address,
        "state": row.state, "shown_state": state(row, live), "live": live, "job_id": row.job_id, "template": row.template,
        "cores": row.cores, "memory": row.memory, "disk": row.disk, "protected": row.protected, "created_at": row.created_at,
        "deletion_requested_at": row.deletion_requested_at, "deletion_requested_by": row.deletion_requested_by,
        "deletion_job_id": row.deletion_job_id, "deletion_error": row.deletion_error, "change_error": row.change_error,
        "sites": sites(&reach, row), "ssh": reach.ssh(row), "code": reach.code(row), "services": services,
        "unverified": row.unverified_since, "mismatch": row.identity_mismatch_at,
    })
}
