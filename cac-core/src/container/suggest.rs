//! A free name for whoever has no idea.

use rand::seq::IndexedRandom as _;

use super::check;
use crate::error::Fields;
use crate::{Core, Error, Result};

const HOW: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clear", "clever", "cosy", "crisp", "eager", "early",
    "fair", "fleet", "fresh", "gentle", "golden", "happy", "keen", "kind", "light", "lively",
    "lucky", "mellow", "merry", "neat", "noble", "quick", "quiet", "rapid", "silver", "steady",
    "sunny", "warm",
];
const WHAT: [&str; 32] = [
    "badger", "beaver", "birch", "brook", "cedar", "comet", "crane", "delta", "falcon", "fern",
    "finch", "harbor", "heron", "iris", "lake", "lark", "lynx", "maple", "marten", "meadow",
    "moss", "oak", "otter", "owl", "pine", "raven", "river", "robin", "stone", "swift", "tern",
    "wren",
];

/// A name that nobody has now; nothing is kept.
pub async fn suggest(core: &Core) -> Result<String> {
    let mut tx = core.db.read().await?;
    let mut name = String::new();
    // Among a thousand names a few tries find a free one; a crowded portal gets a number at the end.
    for attempt in 0..8 {
        name = word(attempt >= 4);
        let mut fields = Fields::default();
        check::label(core, "hostname", &name, &mut fields);
        let free = check::name_is_free(&mut tx, core, "hostname", &name, (0, 0)).await;
        match free {
            Ok(()) if fields.0.is_empty() => break,
            Ok(()) | Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(name)
}

fn word(numbered: bool) -> String {
    let mut random = rand::rng();
    let how = HOW.choose(&mut random).unwrap_or(&HOW[0]);
    let what = WHAT.choose(&mut random).unwrap_or(&WHAT[0]);
    match numbered {
        true => format!("{how}-{what}-{}", rand::random_range(10..1000)),
        false => format!("{how}-{what}"),
    }
}
