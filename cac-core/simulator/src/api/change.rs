//! Changing the options of a container: the rights each option needs and the form in which it is stored.

use std::collections::BTreeMap;

use super::Call;
use crate::answer::Refusal;
use crate::container::{self, Keys, complete_net, read_keys};
use crate::params::split_list;
use crate::permission::Gate;

/// The container whose options change.
pub(crate) struct Scope<'a> {
    pub(crate) vmid: u32,
    /// Pool through which rights may come before the container is a member.
    pub(crate) pool: Option<&'a str>,
    pub(crate) unprivileged: bool,
    /// Options as they are.
    pub(crate) old: &'a BTreeMap<String, String>,
}

/// Fails when the caller may not set one of the options. `root@pam` may everything.
pub(crate) fn may_change(
    call: &Call,
    scope: &Scope<'_>,
    options: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    if call.who.is_root() {
        return Ok(());
    }
    call.with_gate(|gate| {
        options
            .iter()
            .try_for_each(|(option, text)| check(gate, scope, option, Some(text)))
    })
}

/// As `may_change`, for options that are to be removed.
pub(crate) fn may_remove(
    call: &Call,
    scope: &Scope<'_>,
    options: &[String],
) -> Result<(), Refusal> {
    if call.who.is_root() {
        return Ok(());
    }
    call.with_gate(|gate| {
        options
            .iter()
            .try_for_each(|option| check(gate, scope, option, None))
    })
}

fn need(gate: &Gate<'_>, scope: &Scope<'_>, privilege: &str) -> Result<(), Refusal> {
    if let Some(pool) = scope.pool
        && gate.has(&format!("/pool/{pool}"), privilege)
    {
        return Ok(());
    }
    gate.need(&format!("/vms/{}", scope.vmid), &[privilege])
}

fn check(
    gate: &Gate<'_>,
    scope: &Scope<'_>,
    option: &str,
    text: Option<&String>,
) -> Result<(), Refusal> {
    let only_root = |what: &str| {
        Err(Refusal::forbidden(format!(
            "{what} is only allowed for root@pam"
        )))
    };
    match option {
        "cores" | "cpulimit" | "cpuunits" => need(gate, scope, "VM.Config.CPU"),
        "memory" | "swap" => need(gate, scope, "VM.Config.Memory"),
        "hostname" | "nameserver" | "searchdomain" => need(gate, scope, "VM.Config.Network"),
        "hookscript" => only_root("changing the hookscript"),
        "features" => check_features(gate, scope, text),
        // The pool does not count for tags.
        "tags" => gate.need(&format!("/vms/{}", scope.vmid), &["VM.Config.Options"]),
        _ if option.starts_with("dev") => only_root("configuring device passthrough"),
        _ if container::is_disk(option) => check_disk(gate, scope, option, text),
        _ if container::is_net(option) => {
            need(gate, scope, "VM.Config.Network")?;
            let old = scope.old.get(option);
            old.into_iter()
                .chain(text)
                .try_for_each(|net| check_bridge(gate, &read_keys(option, net)))
        }
        _ => need(gate, scope, "VM.Config.Options"),
    }
}

fn check_disk(
    gate: &Gate<'_>,
    scope: &Scope<'_>,
    option: &str,
    text: Option<&String>,
) -> Result<(), Refusal> {
    need(gate, scope, "VM.Config.Disk")?;
    let Some(text) = text else { return Ok(()) };
    let keys = read_keys(option, text);
    let volume = keys.get("volume").map(String::as_str).unwrap_or_default();
    if let Some(path) = volume.strip_prefix('/') {
        let kind = if path.starts_with("dev/") {
            "device"
        } else {
            "bind"
        };
        return Err(Refusal::forbidden(format!(
            "mount point type {kind} is only allowed for root@pam"
        )));
    }
    match volume.split_once(':') {
        Some((storage, size)) if size.parse::<f64>().is_ok() => {
            gate.need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])
        }
        _ => Ok(()),
    }
}

fn check_bridge(gate: &Gate<'_>, net: &Keys) -> Result<(), Refusal> {
    let Some(bridge) = net.get("bridge") else {
        return Ok(());
    };
    let path = format!("/sdn/zones/localnetwork/{bridge}");
    match net.get("tag") {
        Some(tag) => gate.need(&format!("{path}/{tag}"), &["SDN.Use"]),
        None => gate.need(&path, &["SDN.Use"]),
    }
}

fn check_features(
    gate: &Gate<'_>,
    scope: &Scope<'_>,
    text: Option<&String>,
) -> Result<(), Refusal> {
    let privileged = "changing feature flags for privileged container is only allowed for root@pam";
    let others = "changing feature flags (except nesting) is only allowed for root@pam";
    if !scope.unprivileged {
        return Err(Refusal::forbidden(privileged));
    }
    let read = |text: Option<&String>| text.map(|t| read_keys("features", t)).unwrap_or_default();
    let (mut old, mut new) = (read(scope.old.get("features")), read(text));
    let nesting = old.remove("nesting") != new.remove("nesting");
    if old != new {
        return Err(Refusal::forbidden(others));
    }
    if nesting {
        return need(gate, scope, "VM.Allocate");
    }
    Ok(())
}

/// The stored form of an option: tags sorted, nets complete, an empty text as one blank.
pub(crate) fn stored(option: &str, text: &str) -> String {
    match option {
        "tags" => {
            let mut tags: Vec<String> = split_list(text)
                .iter()
                .map(|tag| tag.to_lowercase())
                .collect();
            tags.sort();
            tags.dedup();
            tags.join(";")
        }
        "description" => text.trim_end_matches('\n').to_owned(),
        _ if container::is_net(option) => complete_net(option, text),
        _ if text.is_empty() => " ".to_owned(),
        _ => text.to_owned(),
    }
}
