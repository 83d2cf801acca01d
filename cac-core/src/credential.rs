//! What a request proves itself with: a browser's session, or an API token.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::actor::Actor;
use crate::token::{self, Held};
use crate::{Core, Result, secret, session};

/// How old an answer of [`recent`] may be.
const ROUND: std::time::Duration = std::time::Duration::from_secs(4);
/// Credentials of one query.
const BATCH: usize = 1000;

/// The secret text itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// The id in a session's cookie.
    Session(String),
    /// An API token.
    Token(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Session(_) => "Session(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

/// Who a credential belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub actor: Actor,
    /// Absent for a session.
    pub token: Option<Held>,
}

/// Who it belongs to, if it is good.
pub async fn find(core: &Core, credential: &Credential) -> Result<Option<Known>> {
    Ok(match credential {
        Credential::Session(id) => session::find(core, id)
            .await?
            .map(|actor| Known { actor, token: None }),
        Credential::Token(text) => token::find(core, text).await?.map(|held| Known {
            actor: held.actor(),
            token: Some(held),
        }),
    })
}

/// The credentials that were looked at lately, all of them together.
#[derive(Debug, Default)]
pub(crate) struct Recent(tokio::sync::Mutex<Round>);

#[derive(Debug, Default)]
struct Round {
    at: Option<Instant>,
    good: HashMap<Key, Actor>,
    asked: HashSet<Key>,
}

/// The stored hash, and whether it is a token's.
type Key = (bool, String);

/// As [`find`], from what was seen within the last seconds: for many long requests that ask again and again, at the cost of
/// a query or two for all of them.
pub async fn recent(core: &Core, credential: &Credential) -> Result<Option<Actor>> {
    let key = match credential {
        Credential::Session(id) => (false, session::key(core, id)),
        Credential::Token(text) => (true, secret::hash(text)),
    };
    let mut round = core.credentials.0.lock().await;
    let new = round.asked.insert(key.clone());
    if round.at.is_none_or(|at| at.elapsed() >= ROUND) {
        let asked: Vec<Key> = round.asked.iter().cloned().collect();
        let mut good = HashMap::new();
        for some in asked.chunks(BATCH) {
            good.extend(find_all(core, some).await?);
        }
        // Who does not ask again within a round is forgotten.
        *round = Round {
            at: Some(Instant::now()),
            good,
            asked: HashSet::from([key.clone()]),
        };
    } else if new && !round.good.contains_key(&key) {
        round
            .good
            .extend(find_all(core, std::slice::from_ref(&key)).await?);
    }
    Ok(round.good.get(&key).cloned())
}

async fn find_all(core: &Core, keys: &[Key]) -> Result<HashMap<Key, Actor>> {
    let hashes = |tokens: bool| -> Vec<String> {
        let those = keys.iter().filter(|key| key.0 == tokens);
        those.map(|key| key.1.clone()).collect()
    };
    let mut found = HashMap::new();
    let (sessions, tokens) = (hashes(false), hashes(true));
    if !sessions.is_empty() {
        let good = session::find_all(core, sessions).await?.into_iter();
        found.extend(good.map(|(hash, actor)| ((false, hash), actor)));
    }
    if !tokens.is_empty() {
        let good = token::find_all(core, tokens).await?.into_iter();
        found.extend(good.map(|(hash, (held, _))| ((true, hash), held.actor())));
    }
    Ok(found)
}
