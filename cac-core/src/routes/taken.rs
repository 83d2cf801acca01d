//! External ports that another program has on the machine of a proxy: the file for that one is without them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::db::Tx;
use crate::{Error, Result, args};

/// Some external ports; as text a comma list in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TakenPorts(BTreeSet<u16>);

impl TakenPorts {
    /// Of one proxy; more are no accident.
    pub const MOST: usize = 32;

    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl TakenPorts {
    /// All that proxies leave out now.
    pub(crate) async fn at_proxies(tx: &mut Tx) -> Result<Self> {
        let sql = r#"SELECT r."leftOut" FROM "Proxies" p JOIN "Revisions" r ON r."etag" = p."revision" WHERE r."leftOut" <> ''"#;
        let mut all = BTreeSet::new();
        for row in tx.all(sql, args![]).await? {
            let Self(some) = row.get::<String>("leftOut")?.parse()?;
            all.extend(some);
        }
        Ok(Self(all))
    }
}

impl FromIterator<u16> for TakenPorts {
    fn from_iter<T: IntoIterator<Item = u16>>(ports: T) -> Self {
        Self(ports.into_iter().collect())
    }
}

impl FromStr for TakenPorts {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        match parts.map(str::parse).collect::<Result<BTreeSet<u16>, _>>() {
            Ok(ports) if ports.len() <= Self::MOST => Ok(Self(ports)),
            _ => {
                let message = format!("Give up to {} ports, such as `10001,10007`.", Self::MOST);
                Err(Error::invalid("taken", message))
            }
        }
    }
}

impl fmt::Display for TakenPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<String> = self.0.iter().map(u16::to_string).collect();
        f.write_str(&ports.join(","))
    }
}
