//! Nodes: the Proxmox VE hosts that containers are made on, and the clients that talk to them. What a node's token may do is
//! `node/capability.rs`, which cluster it is in `node/cluster.rs`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::actor::Actor;
use crate::db::{Row, Tx};
use crate::error::Fields;
use crate::pve::{Auth, Pve, Secret, Target, Tls};
use crate::{Core, Error, Result, args, audit, cipher, config, db, placement, transaction};

mod capability;
pub(crate) mod cluster;

pub use capability::{Check, test};

/// Whoever waits for an answer is held up for no longer by a node that is away.
pub const AWAY: Duration = Duration::from_secs(2);

/// A row of `Nodes`. The secret stays inside.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub id: i64,
    /// The name the node has in Proxmox VE.
    pub name: String,
    pub api_url: Option<String>,
    /// `user@realm!name`
    pub token_id: Option<String>,
    #[serde(skip)]
    pub secret: Option<Secret>,
    /// Why a secret that is there cannot be read.
    #[serde(skip)]
    closed: Option<String>,
    /// Absent means verify.
    pub tls_verify: Option<bool>,
    /// SHA-256 of the certificate, when it is pinned.
    pub tls_fingerprint: Option<String>,
    /// The label that requests name by `aiContainer`.
    pub ai_container: Option<String>,
    pub enabled: bool,
    /// Where root disks go; absent: the storage with the most room.
    pub storage: Option<String>,
    /// Absent: `vmbr0`.
    pub bridge: Option<String>,
    /// Which template an `osRelease` means here ([`crate::placement::Preferences`]).
    pub templates: Option<String>,
    /// Names its Proxmox VE cluster; absent until the node was asked.
    #[serde(skip)]
    pub(crate) cluster: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What an admin gives to add a node. Not `Debug`, which would show the secret.
#[derive(Clone, Default)]
pub struct NewNode {
    pub name: String,
    pub api_url: Option<String>,
    pub token_id: Option<String>,
    pub secret: Option<String>,
    pub tls_verify: Option<bool>,
    pub tls_fingerprint: Option<String>,
    pub ai_container: Option<String>,
    pub enabled: Option<bool>,
    pub storage: Option<String>,
    pub bridge: Option<String>,
    pub templates: Option<String>,
}

/// What an admin changes of a node; absent fields stay, and an inner `None` empties the field. Another address or another way to
/// trust the certificate needs `secret` in the same change. Not `Debug`, which would show the secret.
#[derive(Clone, Default)]
pub struct NodeChange {
    pub name: Option<String>,
    pub api_url: Option<Option<String>>,
    pub token_id: Option<Option<String>>,
    pub secret: Option<Option<String>>,
    pub tls_verify: Option<Option<bool>>,
    pub tls_fingerprint: Option<Option<String>>,
    pub ai_container: Option<Option<String>>,
    pub enabled: Option<bool>,
    pub storage: Option<Option<String>>,
    pub bridge: Option<Option<String>>,
    pub templates: Option<Option<String>>,
}

impl NodeChange {
    /// The whole node as it is to be.
    fn on(self, node: Node) -> NewNode {
        NewNode {
            name: self.name.unwrap_or(node.name),
            api_url: self.api_url.unwrap_or(node.api_url),
            token_id: self.token_id.unwrap_or(node.token_id),
            secret: self
                .secret
                .unwrap_or_else(|| node.secret.map(|secret| secret.expose().to_owned())),
            tls_verify: self.tls_verify.unwrap_or(node.tls_verify),
            tls_fingerprint: self.tls_fingerprint.unwrap_or(node.tls_fingerprint),
            ai_container: self.ai_container.unwrap_or(node.ai_container),
            enabled: Some(self.enabled.unwrap_or(node.enabled)),
            storage: self.storage.unwrap_or(node.storage),
            bridge: self.bridge.unwrap_or(node.bridge),
            templates: self.templates.unwrap_or(node.templates),
        }
    }
}

const ALL: &str = r#"SELECT * FROM "Nodes" ORDER BY "id""#;
const ONE: &str = r#"SELECT * FROM "Nodes" WHERE "id" = ?"#;

impl Node {
    fn from_row(core: &Core, row: &Row) -> Result<Self> {
        let sealed: Option<String> = row.get("secretSealed")?;
        let id = row.get("id")?;
        // A plain one was written by hand after the other was sealed: it is the newer one.
        let plain = row.get::<Option<String>>("secret")?.map(Secret::new);
        let (secret, closed) = match sealed.filter(|_| plain.is_none()) {
            None => (plain, None),
            Some(sealed) => match core.cipher.open(&cipher::node(id), &sealed) {
                Ok(secret) => (Some(secret), None),
                Err(error) => (None, Some(error.to_string())),
            },
        };
        Ok(Self {
            id,
            name: row.get("name")?,
            api_url: row.get("apiUrl")?,
            token_id: row.get("tokenId")?,
            secret,
            closed,
            tls_verify: row.get("tlsVerify")?,
            tls_fingerprint: row.get("tlsFingerprint")?,
            ai_container: row.get("aiContainer")?,
            enabled: row.get("enabled")?,
            storage: row.get("storage")?,
            bridge: row.get("bridge")?,
            templates: row.get("templates")?,
            cluster: row.get("cluster")?,
            created_at: row.get("createdAt")?,
            updated_at: row.get("updatedAt")?,
        })
    }

    /// How to reach this node's API as the service token, or why that is not possible.
    pub fn target(&self) -> Result<Target> {
        let missing = |what: &str| {
            Error::Upstream(format!(
                "Node {} is not configured: it has no {what}.",
                self.name
            ))
        };
        let api_url = self.api_url.clone().ok_or_else(|| missing("API address"))?;
        let id = self.token_id.clone().ok_or_else(|| missing("API token"))?;
        if let Some(why) = &self.closed {
            return Err(Error::Upstream(format!("Node {}: {why}", self.name)));
        }
        let secret = self.secret.clone().ok_or_else(|| missing("token secret"))?;
        Ok(Target {
            api_url,
            tls: self.tls()?,
            auth: Auth::Token { id, secret },
        })
    }

    /// How its certificate is trusted: a pinned fingerprint wins, then `tlsVerify`.
    pub fn tls(&self) -> Result<Tls> {
        if let Some(pinned) = &self.tls_fingerprint {
            return config::tls(pinned).map_err(|message| {
                Error::Upstream(format!("Node {}: tlsFingerprint {message}.", self.name))
            });
        }
        Ok(if self.tls_verify == Some(false) {
            Tls::Off
        } else {
            Tls::SystemRoots
        })
    }
}

/// One client for each node, made at first use and again when the row changes.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<i64, (DateTime<Utc>, Pve)>>);

impl Core {
    /// The client that acts on this node as its service token.
    pub fn pve(&self, node: &Node) -> Result<Pve> {
        let mut clients = self
            .clients
            .0
            .lock()
            .expect("nothing panics while it holds the clients");
        if let Some((updated_at, pve)) = clients.get(&node.id)
            && *updated_at == node.updated_at
        {
            return Ok(pve.clone());
        }
        let pve = Pve::new(node.target()?)
            .map_err(|error| Error::Upstream(format!("Node {}: {error}", node.name)))?;
        clients.insert(node.id, (node.updated_at, pve.clone()));
        Ok(pve)
    }
}

/// All nodes in order of their ids. Rights: none are checked; [`list`] is for people.
pub async fn all(core: &Core) -> Result<Vec<Node>> {
    core.db
        .all(ALL, vec![])
        .await?
        .iter()
        .map(|row| Node::from_row(core, row))
        .collect()
}

/// All nodes, for admins.
pub async fn list(core: &Core, actor: &Actor) -> Result<Vec<Node>> {
    actor.must_be_admin()?;
    all(core).await
}

/// One node by its row id. Rights: none are checked.
pub async fn find(core: &Core, id: i64) -> Result<Node> {
    match core.db.opt(ONE, args![id]).await? {
        Some(row) => Node::from_row(core, &row),
        None => Err(Error::NotFound(format!("There is no node {id}."))),
    }
}

/// One node by its name in Proxmox VE, for admins.
pub async fn find_named(core: &Core, actor: &Actor, name: &str) -> Result<Node> {
    let nodes = list(core, actor).await?;
    let known: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let missing = if known.is_empty() {
        format!("There is no node named `{name}`; none was added yet.")
    } else {
        format!(
            "There is no node named `{name}`, only {}.",
            known.join(", ")
        )
    };
    let found = nodes.into_iter().find(|node| node.name == name);
    found.ok_or(Error::NotFound(missing))
}

/// Adds a node, for admins.
pub async fn create(core: &Core, actor: &Actor, mut new: NewNode) -> Result<Node> {
    actor.must_be_admin()?;
    check(&new)?;
    let secret = new.secret.take().map(Secret::new);
    let now = core.clock.now();
    let id = transaction!(core.db, tx => {
        let id = tx.insert(
            r#"INSERT INTO "Nodes" ("name", "apiUrl", "tokenId", "tlsVerify", "tlsFingerprint", "aiContainer", "enabled", "storage", "bridge", "templates", "createdAt", "updatedAt")
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"#,
            args![
                &new.name, new.api_url.as_deref(), new.token_id.as_deref(), new.tls_verify,
                new.tls_fingerprint.as_deref(), new.ai_container.as_deref(), new.enabled.unwrap_or(true),
                new.storage.as_deref(), new.bridge.as_deref(), new.templates.as_deref(), now, now
            ],
        )
        .await
        .map_err(|error| name_taken(error, &new.name))?;
        keep_secret(tx, core, id, secret.as_ref()).await?;
        let node = in_transaction(tx, core, id).await?;
        audit::Change::new("node_create", format!("/nodes/{id}"))
            .created()
            .altered(None, Some(&node))
            .secret("secret", secret.is_some())
            .write(tx, core, actor)
            .await?;
        id
    })?;
    find(core, id).await
}

/// Changes a node, for admins.
pub async fn update(core: &Core, actor: &Actor, id: i64, change: NodeChange) -> Result<Node> {
    actor.must_be_admin()?;
    transaction!(core.db, tx => {
        // Read and written under one lock: what another admin changes at the same time stays.
        tx.lock("settings").await?;
        let before = in_transaction(tx, core, id).await?;
        store(tx, core, before.clone(), &change).await?;
        let after = in_transaction(tx, core, id).await?;
        audit::Change::new("node_update", format!("/nodes/{id}"))
            .altered(Some(&before), Some(&after))
            .secret("secret", change.secret.is_some())
            .write(tx, core, actor)
            .await?;
    })?;
    find(core, id).await
}

/// A node as it is within a transaction.
async fn in_transaction(tx: &mut Tx, core: &Core, id: i64) -> Result<Node> {
    let Some(row) = tx.opt(ONE, args![id]).await? else {
        return Err(Error::NotFound(format!("There is no node {id}.")));
    };
    Node::from_row(core, &row)
}

async fn store(tx: &mut Tx, core: &Core, node: Node, change: &NodeChange) -> Result<()> {
    let id = node.id;
    // The clients tell an old row from a new one by its time.
    let now = core
        .clock
        .now()
        .max(node.updated_at + chrono::Duration::milliseconds(1));
    if let (Some(why), None) = (&node.closed, &change.secret) {
        return Err(Error::conflict(
            "secret",
            format!("{why} Or give the token's secret anew."),
        ));
    }
    let before = node.clone();
    let mut new = change.clone().on(node);
    check(&new)?;
    if change.secret.is_none() && before.secret.is_some() && goes_elsewhere(&before, &new) {
        return Err(Error::invalid(
            "secret",
            "Enter the token's secret again: the node's address or the way its certificate is trusted changes, and a stored secret \
             is sent only where it was entered for.",
        ));
    }
    tx.exec(
        r#"UPDATE "Nodes" SET "name" = ?, "apiUrl" = ?, "tokenId" = ?, "tlsVerify" = ?, "tlsFingerprint" = ?,
                  "aiContainer" = ?, "enabled" = ?, "storage" = ?, "bridge" = ?, "templates" = ?, "updatedAt" = ? WHERE "id" = ?"#,
        args![
            &new.name, new.api_url.as_deref(), new.token_id.as_deref(), new.tls_verify,
            new.tls_fingerprint.as_deref(), new.ai_container.as_deref(), new.enabled.unwrap_or(true),
            new.storage.as_deref(), new.bridge.as_deref(), new.templates.as_deref(), now, id
        ],
    )
    .await
    .map_err(|error| name_taken(error, &new.name))?;
    if change.secret.is_some() {
        let secret = new.secret.take().map(Secret::new);
        keep_secret(tx, core, id, secret.as_ref()).await?;
    }
    Ok(())
}

/// Whether a change is one of the node's credentials or of where they are sent.
#[must_use]
pub fn changes_access(node: &Node, change: &NodeChange) -> bool {
    let token = change.token_id.as_ref();
    change.secret.is_some()
        || token.is_some_and(|token| *token != node.token_id)
        || goes_elsewhere(node, &change.clone().on(node.clone()))
}

/// Whether the token's secret would be sent to another address than before, or to the holder of another certificate.
// Even a narrower trust counts: a certificate that is pinned now may be an attacker's.
fn goes_elsewhere(before: &Node, after: &NewNode) -> bool {
    // As the client reads it, so that `https://PVE:8006/` is no other address than `https://pve:8006`.
    let address = |text: &Option<String>| {
        let url = text
            .as_deref()
            .map(|text| url::Url::parse(text).map_err(|_| text.to_owned()));
        url.map(|url| url.map(|url| url.as_str().trim_end_matches('/').to_owned()))
    };
    let trust = |pinned: Option<&str>, verify: Option<bool>| match pinned {
        Some(pinned) => config::tls(pinned),
        None if verify == Some(false) => Ok(Tls::Off),
        None => Ok(Tls::SystemRoots),
    };
    address(&before.api_url) != address(&after.api_url)
        || trust(before.tls_fingerprint.as_deref(), before.tls_verify)
            != trust(after.tls_fingerprint.as_deref(), after.tls_verify)
}

/// Sealed where there is a key, else as it is.
async fn keep_secret(tx: &mut Tx, core: &Core, id: i64, secret: Option<&Secret>) -> Result<()> {
    let secret = secret.map(Secret::expose);
    let sealed = match secret {
        Some(secret) => core.cipher.seal(&cipher::node(id), secret)?,
        None => None,
    };
    let plain = secret.filter(|_| sealed.is_none());
    let sql = r#"UPDATE "Nodes" SET "secret" = ?, "secretSealed" = ? WHERE "id" = ?"#;
    tx.exec(sql, args![plain, sealed.as_deref(), id]).await?;
    Ok(())
}

fn name_taken(error: db::Error, name: &str) -> Error {
    match error {
        db::Error::Unique(_) => {
            Error::conflict("name", format!("There is already a node named `{name}`."))
        }
        other => other.into(),
    }
}

/// Removes a node, for admins; refused while containers refer to it.
pub async fn delete(core: &Core, actor: &Actor, id: i64) -> Result<()> {
    actor.must_be_admin()?;
    transaction!(core.db, tx => {
        let used = tx.one(r#"SELECT COUNT(*) AS "n" FROM "Containers" WHERE "nodeId" = ?"#, args![id]).await?;
        let used: i64 = used.get("n")?;
        if used > 0 {
            return Err(Error::conflict("id", format!("{used} containers are on this node; delete or move them first.")));
        }
        let node = in_transaction(tx, core, id).await?;
        tx.exec(r#"DELETE FROM "Nodes" WHERE "id" = ?"#, args![id]).await?;
        audit::Change::new("node_delete", format!("/nodes/{id}"))
            .deleted()
            .altered(Some(&node), None)
            .write(tx, core, actor)
            .await?;
    })
}

fn check(new: &NewNode) -> Result<()> {
    let mut fields = Fields::default();
    if !crate::container::is_label(&new.name.to_lowercase()) {
        fields.add(
            "name",
            "Give the name that the node has in Proxmox VE, such as `pve1`.",
        );
    }
    if new
        .api_url
        .as_deref()
        .is_some_and(|url| !url.starts_with("https://"))
    {
        fields.add(
            "apiUrl",
            "Must begin with `https://`, such as `https://pve1.example.org:8006`.",
        );
    }
    if new
        .token_id
        .as_deref()
        .is_some_and(|id| !(id.contains('@') && id.contains('!')))
    {
        fields.add("tokenId", "Must look like `user@realm!name`.");
    }
    if new.token_id.is_some() != new.secret.is_some() {
        fields.add(
            "secret",
            "Token id and secret belong together; give both or none.",
        );
    }
    if let Some(Err(message)) = new.tls_fingerprint.as_deref().map(config::tls) {
        fields.add("tlsFingerprint", message);
    }
    let label = |text: &str| {
        !text.is_empty()
            && text.len() <= 50
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    if new.ai_container.as_deref().is_some_and(|text| !label(text)) {
        fields.add(
            "aiContainer",
            "A label has 1 to 50 letters, digits, `-` or `_`.",
        );
    }
    if let Some(message) = new
        .templates
        .as_deref()
        .and_then(placement::Preferences::check)
    {
        fields.add("templates", message);
    }
    fields.into_result()
}
