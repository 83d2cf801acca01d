//! Named sizes of new containers, as the operator offers them (`CONTAINER_SIZES`).

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Serialize;

/// How many processors a container may have.
pub(super) const CORES: RangeInclusive<u32> = 1..=128;
/// MiB
pub(super) const MEMORY: RangeInclusive<u32> = 64..=1 << 20;
/// GiB
pub(super) const DISK: RangeInclusive<u32> = 1..=16384;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Size {
    pub name: String,
    pub cores: u32,
    /// MiB
    pub memory: u32,
    /// GiB
    pub disk: u32,
}

/// The sizes in the operator's order: `small:1/1024/8, large:4/8192/40` is name, cores, MiB of memory, GiB of disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes(pub Vec<Size>);

impl Default for Sizes {
    fn default() -> Self {
        "small:1/1024/8,medium:2/4096/20,large:4/8192/40"
            .parse()
            .expect("tested")
    }
}

impl Sizes {
    /// The one with this name, in any case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Size> {
        let mut all = self.0.iter();
        all.find(|size| size.name.eq_ignore_ascii_case(name.trim()))
    }

    /// The names, for messages.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|size| size.name.as_str()).collect();
        names.join(", ")
    }
}

impl FromStr for Sizes {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut sizes = Self(Vec::new());
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let (name, amounts) = word.split_once(':').ok_or(())?;
            let numbers: Result<Vec<u32>, _> = amounts.split('/').map(str::parse).collect();
            let Ok([cores, memory, disk]) = <[u32; 3]>::try_from(numbers.map_err(drop)?) else {
                return Err(());
            };
            let known = sizes.find(name).is_some();
            let bounds = CORES.contains(&cores) && MEMORY.contains(&memory) && DISK.contains(&disk);
            if known || !super::is_label(name) || !bounds {
                return Err(());
            }
            sizes.0.push(Size {
                name: name.to_owned(),
                cores,
                memory,
                disk,
            });
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_their_order_and_nonsense_is_refused() {
        let sizes: Sizes = "small:1/512/4, big-one:8/16384/100".parse().unwrap();
        assert_eq!(sizes.names(), "small, big-one");
        let big = sizes.find("BIG-ONE").unwrap();
        assert_eq!((big.cores, big.memory, big.disk), (8, 16384, 100));
        assert_eq!(Sizes::default().0.len(), 3);
        assert!("".parse::<Sizes>().unwrap().0.is_empty());
        for bad in [
            "small",
            "small:1/2",
            "small:1/512/4/5",
            "small:0/512/4",
            "small:1/63/4",
            "small:1/512/0",
            "a b:1/512/4",
            "a:1/512/4,A:1/512/4",
            ":1/512/4",
            "small:-1/512/4",
        ] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
    }
}
