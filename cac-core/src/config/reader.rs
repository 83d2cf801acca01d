//! One variable at a time: its text, its default, and the sentence for a value that does not fit.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::Vars;

/// Variables, and what is wrong with them so far.
pub(super) struct Reader<'a> {
    pub(super) vars: &'a Vars,
    pub(super) problems: Vec<String>,
    pub(super) production: bool,
}

impl Reader<'_> {
    pub(super) fn text(&self, name: &str, default: &str) -> String {
        self.vars.get(name).unwrap_or(default).to_owned()
    }

    pub(super) fn problem(&mut self, name: &str, message: impl std::fmt::Display) {
        self.problems.push(format!("{name} {message}."));
    }

    pub(super) fn parse<T: FromStr>(&mut self, name: &str, default: T, shape: &str) -> T {
        match self.vars.get(name).map(str::parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                let value = self.text(name, "");
                self.problem(name, format!("must be {shape}; it is `{value}`"));
                default
            }
        }
    }

    /// `on` or `off`.
    pub(super) fn switch(&mut self, name: &str, default: bool) -> bool {
        match self.vars.get(name) {
            None => default,
            Some("on") => true,
            Some("off") => false,
            Some(other) => {
                self.problem(name, format!("must be `on` or `off`; it is `{other}`"));
                false
            }
        }
    }

    /// At least one second.
    pub(super) fn seconds(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_secs(self.parse(name, default, "a number of seconds").max(1))
    }

    pub(super) fn list<T: FromStr>(&mut self, name: &str, default: &str, shape: &str) -> Vec<T> {
        let text = self.text(name, default);
        let mut values = Vec::new();
        for part in text.split([',', ' ']).filter(|p| !p.is_empty()) {
            match part.parse() {
                Ok(value) => values.push(value),
                Err(_) => self.problem(
                    name,
                    format!("must be a comma list of {shape}; `{part}` is none"),
                ),
            }
        }
        values
    }

    pub(super) fn networks(&mut self, name: &str, default: &str) -> Vec<IpNet> {
        let nets: Vec<Net> = self.list(name, default, "networks such as `192.0.2.0/24`");
        nets.into_iter().map(|net| net.0).collect()
    }

    pub(super) fn ports(
        &mut self,
        name: &str,
        default: RangeInclusive<u16>,
    ) -> RangeInclusive<u16> {
        let Some(text) = self.vars.get(name) else {
            return default;
        };
        let range = text
            .split_once('-')
            .and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)))
            .filter(|(a, b): &(u16, u16)| *a > 0 && a <= b);
        if let Some((first, last)) = range {
            first..=last
        } else {
            self.problem(
                name,
                format!(
                    "must be a range of ports such as `{}-{}`",
                    default.start(),
                    default.end()
                ),
            );
            default
        }
    }
}

/// A network; a bare address means that one host.
struct Net(IpNet);

impl FromStr for Net {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(Net)
            .map_err(|_| ())
    }
}
