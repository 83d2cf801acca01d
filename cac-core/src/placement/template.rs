//! Templates: what the nodes have, and which of them an `osRelease` means.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::Wish;
use crate::node::{self, Node};
use crate::pve::{self, Pve};
use crate::{Core, Result};

/// What a container can be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// A file on a storage.
    Archive(pve::Template),
    /// A container that was made a template, and is cloned.
    Container {
        vmid: u32,
        name: String,
        /// Bytes
        disk: Option<u64>,
    },
}

impl Template {
    /// As requests name it: a volume id, or `lxc/VMID`.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Archive(archive) => archive.volid.clone(),
            Self::Container { vmid, .. } => format!("lxc/{vmid}"),
        }
    }

    /// A volume id or its file's name, `lxc/VMID` or the container's name.
    fn is_named(&self, text: &str) -> bool {
        match self {
            Self::Archive(archive) => archive.volid == text || archive.file_name() == text,
            Self::Container { name, .. } => name == text || self.id() == text,
        }
    }

    /// The `osRelease` that asks for exactly this distribution and version, such as `debian-12`.
    #[must_use]
    pub fn os_release(&self) -> Option<String> {
        match self {
            Self::Archive(archive) => os_release(&archive.volid),
            Self::Container { .. } => None,
        }
    }

    /// Bytes
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Archive(archive) => archive.size,
            Self::Container { disk, .. } => *disk,
        }
    }
}

/// The VMID of a template that is a container, by what [`Template::id`] says.
#[must_use]
pub fn container_id(template: &str) -> Option<u32> {
    template.strip_prefix("lxc/")?.parse().ok()
}

/// Whether this names a container and no archive: only archives have such endings.
#[must_use]
pub fn names_container(template: &str) -> bool {
    let file = template.rsplit('/').next().unwrap_or(template);
    !file.contains(".tar") && !template.contains(':')
}

/// What is said where an ssh key is given and the container would be a clone.
pub const NO_KEY: &str = "Proxmox VE puts no key into a clone of a template container: leave the key out and sign in as its template \
    provides, or choose a template archive.";

/// All templates of a node: archives on its active storages, and containers.
pub async fn templates(pve: &Pve, node: &Node) -> Result<Vec<Template>, pve::Error> {
    let mut found = Vec::new();
    for storage in pve.storages(&node.name, pve::Content::Templates).await? {
        if storage.active.unwrap_or(true) {
            let archives = pve.templates(&node.name, &storage.storage).await?;
            found.extend(archives.into_iter().map(Template::Archive));
        }
    }
    let containers = pve.lxc_list(&node.name).await?.into_iter();
    let mut containers: Vec<_> = containers.filter(|ct| ct.template == Some(true)).collect();
    containers.sort_by_key(|ct| ct.vmid);
    found.extend(containers.into_iter().map(|ct| Template::Container {
        vmid: ct.vmid,
        name: ct.name.unwrap_or_default(),
        disk: ct.maxdisk,
    }));
    Ok(found)
}

/// A template and the node that has it.
#[derive(Debug, Clone)]
pub struct Offer {
    pub node: String,
    pub template: Template,
    /// What asks for it there by `osRelease`.
    pub os_releases: Vec<String>,
}

/// The templates of all enabled nodes that answer, by node and name.
pub async fn offered(core: &Core) -> Result<Vec<Offer>> {
    let nodes = node::all(core).await?;
    let looks = nodes.iter().filter(|node| node.enabled).map(|node| async {
        let pve = core.pve(node).ok()?;
        let found = tokio::time::timeout(node::AWAY, templates(&pve, node)).await;
        let preferred = Preferences::read(node.templates.as_deref());
        let offer = |template: Template| {
            let named = preferred.0.iter();
            let named = named.filter(|(_, wanted)| template.is_named(wanted));
            let own = template.os_release();
            Offer {
                node: node.name.clone(),
                os_releases: named.map(|(os, _)| os.clone()).chain(own).collect(),
                template,
            }
        };
        Some(found.ok()?.ok()?.into_iter().map(offer).collect::<Vec<_>>())
    });
    let mut all: Vec<Offer> = join_all(looks)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    all.sort_by_cached_key(|offer| (offer.node.clone(), offer.template.id()));
    Ok(all)
}

/// Which template an `osRelease` means on one node, as its admin wishes: `debian=lxc/160, node22=node-template`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences(pub BTreeMap<String, String>);

impl Preferences {
    /// Pairs that make no sense are left out; [`Preferences::check`] finds them.
    #[must_use]
    pub fn read(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split(',');
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(os, template)| (os.trim().to_lowercase(), template.trim().to_owned()))
                .filter(|(os, template)| is_name(os) && is_template(template))
                .collect(),
        )
    }

    /// What is wrong with a text, if anything is.
    #[must_use]
    pub fn check(text: &str) -> Option<String> {
        let pairs = text
            .split(',')
            .filter(|pair| !pair.trim().is_empty())
            .count();
        (Self::read(Some(text)).0.len() != pairs).then(|| {
            "Write pairs such as `debian=lxc/160, rocky=rockylinux-9-default_20240912_amd64.tar.xz`, each osRelease once.".to_owned()
        })
    }

    /// What an `osRelease` means here, where the admin says so.
    #[must_use]
    pub fn get(&self, os_release: &str) -> Option<&str> {
        self.0.get(os_release).map(String::as_str)
    }
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_. ".contains(c);
    !text.is_empty() && text.len() <= 50 && text.chars().all(plain)
}

/// Whether this can be the name of a template.
#[must_use]
pub fn is_template(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/+".contains(c);
    !text.is_empty() && text.len() <= 255 && text.chars().all(plain)
}

/// The `osRelease` that asks for exactly the distribution and version of an archive, such as `debian-12`.
#[must_use]
pub fn os_release(volid: &str) -> Option<String> {
    let file = volid.rsplit('/').next()?;
    let (distribution, rest) = file.split_once('-')?;
    let (name, _) = DISTRIBUTIONS
        .iter()
        .find(|(_, known)| *known == distribution)?;
    let release = rest.split(['-', '_']).next()?;
    numbers(release).map(|_| format!("{name}-{release}"))
}

/// The template that was named, else the one that the node prefers, else the newest archive of the distribution.
pub(super) fn pick<'a>(found: &'a [Template], node: &Node, wish: &Wish) -> Option<&'a Template> {
    let preferred = Preferences::read(node.templates.as_deref());
    let named = wish.template.as_deref();
    if let Some(named) = named.or_else(|| preferred.get(&wish.os_release)) {
        return found.iter().find(|template| template.is_named(named));
    }
    let wanted = Os::parse(&wish.os_release)?;
    let archives = found.iter().filter_map(|template| match template {
        Template::Archive(archive) => Some((version_of(&archive.volid, &wanted)?, template)),
        Template::Container { .. } => None,
    });
    archives
        .max_by(|a, b| a.0.cmp(&b.0))
        .map(|(_, template)| template)
}

/// An `osRelease`: a distribution's name, with or without a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Os {
    distribution: &'static str,
    version: Vec<u32>,
}

/// Names that people use, and the names in Proxmox VE's template files.
const DISTRIBUTIONS: [(&str, &str); 14] = [
    ("almalinux", "almalinux"),
    ("alma", "almalinux"),
    ("alpine", "alpine"),
    ("arch", "archlinux"),
    ("archlinux", "archlinux"),
    ("centos", "centos"),
    ("debian", "debian"),
    ("devuan", "devuan"),
    ("fedora", "fedora"),
    ("gentoo", "gentoo"),
    ("opensuse", "opensuse"),
    ("rocky", "rockylinux"),
    ("rockylinux", "rockylinux"),
    ("ubuntu", "ubuntu"),
];

impl Os {
    /// `debian`, `debian-12`, `debian 12` and `debian12` are all understood.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        let split = text
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(text.len());
        let (name, version) = text.split_at(split);
        let (_, distribution) = DISTRIBUTIONS.iter().find(|(known, _)| *known == name)?;
        let version = version.trim_start_matches(['-', ' ', ':']);
        let version = if version.is_empty() {
            Some(Vec::new())
        } else {
            numbers(version)
        };
        Some(Self {
            distribution,
            version: version?,
        })
    }

    /// The names that may be asked for.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        DISTRIBUTIONS.iter().map(|(name, _)| *name).collect()
    }
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// What orders templates of one distribution: its version, then the template's own.
fn version_of(volid: &str, wanted: &Os) -> Option<(Vec<u32>, Vec<u32>)> {
    let file = volid.rsplit('/').next()?;
    let rest = file.strip_prefix(wanted.distribution)?.strip_prefix('-')?;
    let (release, rest) = rest.split_once(['-', '_'])?;
    let release = numbers(release).unwrap_or_default();
    if !release.starts_with(&wanted.version) {
        return None;
    }
    let build = rest.split('_').find_map(|part| {
        let digits: String = part
            .chars()
            .map(|c| if c == '-' { '.' } else { c })
            .collect();
        numbers(&digits)
    });
    Some((release, build.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(os: &str, files: &[&str]) -> Option<String> {
        let wanted = Os::parse(os)?;
        let mut found: Vec<_> = files
            .iter()
            .filter_map(|f| Some((version_of(f, &wanted)?, *f)))
            .collect();
        found.sort();
        found.pop().map(|(_, file)| file.to_owned())
    }

    #[test]
    fn the_newest_template_of_a_distribution_is_taken() {
        let files = [
            "local:vztmpl/debian-9-standard_9.7-1_amd64.tar.gz",
            "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst",
            "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst",
            "local:vztmpl/rockylinux-9-default_20240912_amd64.tar.xz",
            "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
        ];
        assert_eq!(picked("debian", &files).as_deref(), Some(files[2]));
        assert_eq!(picked("debian-9", &files).as_deref(), Some(files[0]));
        assert_eq!(picked("Rocky", &files).as_deref(), Some(files[3]));
        assert_eq!(picked("ubuntu 24.04", &files).as_deref(), Some(files[4]));
        assert_eq!(picked("debian-11", &files), None);
        let named = os_release("local:vztmpl/rockylinux-9-default_20240912_amd64.tar.xz");
        assert_eq!(named.as_deref(), Some("rocky-9"));
        assert_eq!(
            os_release("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst").as_deref(),
            Some("debian-12")
        );
        assert_eq!(os_release("local:vztmpl/turnkey-core_18.tar.gz"), None);
        assert_eq!(Os::parse("windows"), None);
        assert_eq!(Os::parse("debian-x"), None);
    }
}
