//! Which labels and public names may be given newly: none that means something to programs or people by itself, none that looks like
//! another one. Existing rows keep theirs and stay served; [`questionable`] lists them. Not the shape of a label
//! ([`crate::container::is_label`]), nor whether it is free.

use std::collections::BTreeMap;
use std::fmt;

use unicode_security::{GeneralSecurityProfile as _, MixedScript as _, skeleton};

use crate::config::Config;
use crate::container::is_label;
use crate::db::Db;
use crate::{Result, args};

/// Labels that programs trust by themselves, and names under which people expect the operator; `RESERVED_HOSTNAMES` adds to them.
///
/// `wpad` gives browsers their proxy, `isatap` Windows its IPv6 router, `autodiscover` and `autoconfig` mail programs their server,
/// `mta-sts` (RFC 8461) and `openpgpkey` speak for the domain's mail, `localhost` is the machine itself.
pub const ALWAYS_RESERVED: [&str; 34] = [
    "wpad",
    "isatap",
    "autodiscover",
    "autoconfig",
    "mta-sts",
    "openpgpkey",
    "localhost",
    "localdomain",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "login",
    "signin",
    "logout",
    "sso",
    "auth",
    "oauth",
    "oidc",
    "saml",
    "idp",
    "account",
    "accounts",
    "password",
    "passwords",
    "portal",
    "security",
    "webmail",
    "imap",
    "pop",
    "pop3",
    "vpn",
    "pve",
    "proxmox",
    "dns",
];

/// Why somebody may not be given this label newly; a sentence that says what to do.
pub(crate) fn problem(config: &Config, label: &str) -> Option<String> {
    let reserved = config.containers.reserved_hostnames.iter();
    let mut reserved = reserved.map(String::as_str).chain(ALWAYS_RESERVED);
    if reserved.any(|name| name == label) || is_own(config, &config.full_name(label)) {
        return Some(format!("`{label}` is reserved; choose another name."));
    }
    internationalised(config.containers.idn, label)
}

/// Whether this is one of the portal's own names: that of `CAC_PUBLIC_URL`, or one of `CAC_HOSTS`.
pub(crate) fn is_own(config: &Config, full: &str) -> bool {
    let mut hosts = config.hosts.iter();
    config.public_url.host_str() == Some(full) || hosts.any(|host| host.eq_ignore_ascii_case(full))
}

/// The rules of IDNA ([UTS #46](https://www.unicode.org/reports/tr46/)) and against lookalikes
/// ([UTS #39](https://www.unicode.org/reports/tr39/)).
fn internationalised(allowed: bool, label: &str) -> Option<String> {
    let Some(encoded) = label.strip_prefix("xn--") else {
        // RFC 5890 §2.3.1 keeps all of them for encodings to come.
        let kept = label.get(2..4) == Some("--");
        return kept.then(|| {
            format!("`{label}` has `--` after its second character, which is kept for names in other alphabets; choose another name.")
        });
    };
    if !allowed {
        return Some(format!(
            "`{label}` is a name in another alphabet, which this portal does not allow; use a to z, 0 to 9 and `-`."
        ));
    }
    let (text, read) = idna::domain_to_unicode(label);
    let again = idna::domain_to_ascii_strict(&text);
    if encoded.is_empty()
        || read.is_err()
        || text.is_ascii()
        || again.ok().as_deref() != Some(label)
    {
        return Some(format!(
            "`{label}` is no valid internationalised name, so browsers refuse it; write it as a browser's address bar does."
        ));
    }
    if !text.chars().all(|c| c == '-' || c.identifier_allowed()) {
        return Some(format!(
            "`{text}` has characters that are not of any alphabet in daily use; choose another name."
        ));
    }
    if !text.as_str().is_single_script() {
        return Some(format!(
            "`{text}` mixes alphabets, so it can be taken for another name; use the letters of one."
        ));
    }
    let looks: String = skeleton(&text).collect();
    looks.is_ascii().then(|| {
        format!("`{text}` can be taken for `{looks}`; choose a name that looks like no other.")
    })
}

/// How a name in another alphabet is written; absent where it is none.
pub(crate) fn encoded(config: &Config, text: &str) -> Option<String> {
    let written = idna::domain_to_ascii_strict(text).ok()?;
    let good = config.containers.idn && !text.is_ascii() && is_label(&written);
    (good && problem(config, &written).is_none()).then_some(written)
}

/// A row whose name nobody would be given today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionableName {
    /// The container that it is or belongs to.
    pub container: i64,
    pub name: String,
    pub reason: String,
}

impl fmt::Display for QuestionableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` of container {} stays served, but nobody would be given it today: {}",
            self.name, self.container, self.reason
        )
    }
}

/// All names under `CAC_DOMAIN` that exist and would not be given today; they stay served.
pub async fn questionable(db: &Db, config: &Config) -> Result<Vec<QuestionableName>> {
    // Two statements, since MariaDB joins no columns of different collations.
    let hostnames = r#"SELECT "id" AS "container", "hostname" AS "name" FROM "Containers""#;
    let services = r#"SELECT "containerId" AS "container", "externalHostname" AS "name" FROM "Services"
                      WHERE "externalHostname" IS NOT NULL"#;
    let under = format!(".{}", config.domain);
    let mut found = BTreeMap::new();
    for sql in [hostnames, services] {
        for row in db.all(sql, args![]).await? {
            let name = row.get::<String>("name")?.to_lowercase();
            let label = name.strip_suffix(&under).unwrap_or(&name);
            // Other shapes are listed as rows that break the naming rules.
            let reason = match is_label(label) {
                true => problem(config, label),
                false => is_own(config, &name).then(|| format!("`{name}` is the portal's.")),
            };
            if let Some(reason) = reason {
                let container: i64 = row.get("container")?;
                found.insert((container, label.to_owned()), reason);
            }
        }
    }
    let listed = found
        .into_iter()
        .map(|((container, name), reason)| QuestionableName {
            container,
            name,
            reason,
        });
    Ok(listed.collect())
}

/// Whether browsers probably take two names for one site, so that pages under one can set cookies for the other.
///
/// Compares the last two labels, or three where the second to last is a registry's own such as `co.uk`; the public suffix list knows
/// more such registries, but it is 2.5 MB and this is only advice.
#[must_use]
pub fn same_site(one: &str, other: &str) -> bool {
    const OF_REGISTRIES: [&str; 11] = [
        "ac", "co", "com", "edu", "go", "gov", "gv", "ne", "net", "or", "org",
    ];
    let site = |name: &str| {
        let name = name.to_lowercase();
        let labels: Vec<&str> = name.trim_end_matches('.').rsplit('.').collect();
        let country = labels.first().is_some_and(|label| label.len() == 2);
        let registry = country
            && labels
                .get(1)
                .is_some_and(|label| OF_REGISTRIES.contains(label));
        let count = if registry { 3 } else { 2 };
        labels
            .into_iter()
            .take(count)
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    site(one) == site(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M6 of the attack: an accepted homograph of `apple`. Row 31 of the field reports: names that browsers refuse.
    #[test]
    fn names_in_other_alphabets() {
        for good in ["xn--bcher-kva", "xn--e1afmkfd"] {
            assert_eq!(internationalised(true, good), None, "{good}");
            let off = internationalised(false, good).expect("refused");
            assert!(off.contains("does not allow"), "{off}");
        }
        for (bad, why) in [
            // "аррӏе", wholly Cyrillic.
            ("xn--80ak6aa92e", "can be taken for `apple`"),
            // "pаypal" with a Cyrillic "а".
            ("xn--pypal-4ve", "mixes alphabets"),
            ("xn--a", "no valid"),
            ("xn--", "no valid"),
            ("xn--zzzzzzzzzzzz", "no valid"),
            // "BÜCHER" in capitals, which is not how it is written.
            ("xn--BCHER-KVA", "no valid"),
            // A snowman.
            ("xn--n3h", "not of any alphabet"),
            ("ab--cd", "kept for names"),
        ] {
            let problem = internationalised(true, bad);
            let problem = problem.unwrap_or_else(|| panic!("{bad} is accepted"));
            assert!(problem.contains(why), "{bad}: {problem}");
        }
        for plain in ["web", "a-b", "a--b", "x--n", "web--1"] {
            assert_eq!(internationalised(false, plain), None, "{plain}");
        }
    }

    #[test]
    fn sites() {
        for (one, other) in [
            ("portal.example.org", "example.org"),
            ("portal.example.org", "apps.example.org"),
            ("Portal.Example.org.", "a.b.example.org"),
            ("portal.example.co.uk", "apps.example.co.uk"),
        ] {
            assert!(same_site(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("portal.example.org", "example.net"),
            ("portal.example.org", "example-apps.org"),
            ("portal.one.co.uk", "two.co.uk"),
            ("localhost", "cac.localhost"),
        ] {
            assert!(!same_site(one, other), "{one} {other}");
        }
    }
}
