//! A self-signed certificate for a demo or a first try. Production certificates come from an ACME client, not from here.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Datelike, Days, Utc};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

use super::value::PublicName;
use crate::{Error, Result};

/// Browsers refuse more than 398 days.
const VALID_DAYS: u64 = 397;
/// Made anew when less than this is left.
const SPARE_DAYS: u64 = 30;

/// Where a certificate and its key lie, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A certificate for each of these domains and every name one label below it, as files of mode 0600 in `dir` (0700
/// when it has to be made). Made once and reused for as long as it fits the domains and does not expire soon.
pub fn self_signed(domains: &[PublicName], dir: &Path) -> Result<Certificate> {
    let files = Certificate {
        certificate: dir.join("certificate.pem"),
        key: dir.join("certificate.key"),
    };
    let note = dir.join("certificate.for");
    let now = Utc::now();
    if fits(&files, &note, domains, now) {
        return Ok(files);
    }
    let failed =
        |what: &str, why: &dyn std::fmt::Display| Error::Internal(format!("{what}: {why}"));
    let made = |error: rcgen::Error| failed("a certificate cannot be made", &error);
    let key = KeyPair::generate().map_err(made)?;
    let until = now + Days::new(VALID_DAYS);
    let certificate = parameters(domains, now, until)
        .and_then(|p| p.self_signed(&key))
        .map_err(made)?;
    let io =
        |error: std::io::Error| failed(&format!("{} cannot be written", dir.display()), &error);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io)?;
    // The note last: a half-written pair is never taken for a whole one.
    let _ = fs::remove_file(&note);
    write_private(&files.key, &key.serialize_pem()).map_err(io)?;
    write_private(&files.certificate, &certificate.pem()).map_err(io)?;
    write_private(&note, &note_text(domains, until)).map_err(io)?;
    Ok(files)
}

fn parameters(
    domains: &[PublicName],
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> std::result::Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = domains
        .iter()
        .flat_map(|d| [d.to_string(), format!("*.{d}")])
        .collect();
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "Create-a-Container, self-signed");
    let small = |number: u32| u8::try_from(number).expect("months and days are small");
    let day =
        |when: DateTime<Utc>| date_time_ymd(when.year(), small(when.month()), small(when.day()));
    parameters.not_before = day(now - Days::new(1));
    parameters.not_after = day(until);
    Ok(parameters)
}

fn note_text(domains: &[PublicName], until: DateTime<Utc>) -> String {
    let mut names: Vec<&str> = domains.iter().map(PublicName::as_str).collect();
    names.sort_unstable();
    format!("{}\n{}\n", until.to_rfc3339(), names.join(" "))
}

fn fits(files: &Certificate, note: &Path, domains: &[PublicName], now: DateTime<Utc>) -> bool {
    let Ok(said) = fs::read_to_string(note) else {
        return false;
    };
    let until = said
        .lines()
        .next()
        .and_then(|line| DateTime::parse_from_rfc3339(line).ok());
    until.is_some_and(|until| {
        let until = until.to_utc();
        said == note_text(domains, until) && until - Days::new(SPARE_DAYS) > now
    }) && files.certificate.is_file()
        && files.key.is_file()
}

/// Beside and renamed, so that a reader never sees half of it.
pub(super) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_for_the_same_domains() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tls");
        let domains = ["cac.localhost".parse().unwrap()];
        let first = self_signed(&domains, &dir).unwrap();
        let text = fs::read(&first.certificate).unwrap();
        assert_eq!(
            fs::metadata(&first.key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(self_signed(&domains, &dir).unwrap(), first);
        assert_eq!(fs::read(&first.certificate).unwrap(), text);
        let more = [
            "cac.localhost".parse().unwrap(),
            "cac.test".parse().unwrap(),
        ];
        self_signed(&more, &dir).unwrap();
        assert_ne!(fs::read(&first.certificate).unwrap(), text);
    }
}
