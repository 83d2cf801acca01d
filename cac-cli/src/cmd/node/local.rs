//! `cac node --local`: in the database of this installation.

use std::process::ExitCode;

use cac_core::node::{self, NewNode};
use cac_core::{Actor, Core};

use super::{Add, Row, secret, table, tested, trust, yes_no};
use crate::cmd::local;
use crate::print::{self, Exit, Failure};

impl From<node::Node> for Row {
    fn from(node: node::Node) -> Self {
        let tls = trust(node.tls_fingerprint.is_some(), node.tls_verify);
        Self([
            node.id.to_string(),
            node.name,
            node.api_url.unwrap_or_default(),
            node.token_id.unwrap_or_default(),
            tls.to_owned(),
            node.ai_container.unwrap_or_default(),
            yes_no(node.enabled).to_owned(),
        ])
    }
}

pub(super) async fn add(core: &Core, asked: Add, json: bool) -> Result<ExitCode, Failure> {
    let settings = asked.settings;
    let (tls_verify, tls_fingerprint) = settings.tls();
    if settings.api_url.is_none() || settings.token_id.is_none() {
        return Err(Exit::usage("Give --api-url and --token-id."));
    }
    let new = NewNode {
        name: asked.which.name,
        secret: Some(secret(settings.secret_file.as_deref())?),
        api_url: settings.api_url,
        token_id: settings.token_id,
        tls_verify: tls_verify.or(Some(true)),
        tls_fingerprint: tls_fingerprint.filter(|text| !text.is_empty()),
        ai_container: settings.ai_container,
        enabled: Some(!asked.disabled),
        storage: settings.storage,
        bridge: settings.bridge,
        templates: settings.templates,
    };
    let node = node::create(core, &local(), new).await?;
    if json {
        print::json(&node)?;
    } else {
        let name = &node.name;
        print::data(&format!(
            "Added node {name}. `cac node test {name} --local` shows what it can do.\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn list(core: &Core, json: bool) -> Result<ExitCode, Failure> {
    let nodes = node::list(core, &Actor::local()).await?;
    match json {
        true => print::json(&nodes)?,
        false => {
            let rows = nodes.into_iter().map(Row::from).collect();
            table(rows, "cac node add --local")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn test(core: &Core, name: &str, json: bool) -> Result<ExitCode, Failure> {
    let local = Actor::local();
    let node = node::find_named(core, &local, name).await?;
    let check = node::test(core, &local, node.id).await?;
    tested(name, &check, json)
}
