//! A mail server for tests (Debian's python3-aiosmtpd), and what its mails say.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cac_core::testing::until;

/// A mail server that keeps what it takes in a Maildir.
pub(crate) struct MailServer {
    child: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl MailServer {
    pub(crate) fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("/usr/bin/python3")
            .args(["-m", "aiosmtpd", "-n", "-l", &format!("127.0.0.1:{port}")])
            .args(["-c", "aiosmtpd.handlers.Mailbox"])
            .arg(folder.path().join("mail"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run tests by `.ci/servers`, which installs python3-aiosmtpd");
        Self {
            child,
            port,
            folder,
        }
    }

    pub(crate) fn mails(&self) -> Vec<String> {
        let new = self.folder.path().join("mail/new");
        let Ok(entries) = std::fs::read_dir(Path::new(&new)) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect()
    }

    /// Waits for the mail that is about this.
    pub(crate) async fn mail(&self, subject: &str) -> String {
        let find = || self.mails().into_iter().find(|mail| mail.contains(subject));
        until(subject, async || find().is_some()).await;
        find().unwrap()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of the mail before its first part, with continuations joined.
pub(crate) fn headers(mail: &str) -> Vec<String> {
    let head = mail.split("\n\n").next().unwrap();
    let joined = head
        .replace("\r", "")
        .replace("\n ", " ")
        .replace("\n\t", " ");
    joined.lines().map(str::to_owned).collect()
}

pub(crate) fn link(mail: &str) -> String {
    // Quoted-printable breaks long lines.
    let text = mail.replace("=\r\n", "").replace("=\n", "");
    let at = text.find("/account/").unwrap();
    let link: String = text[at..]
        .chars()
        .take_while(|c| !c.is_whitespace())
        .collect();
    assert_eq!(link.rsplit('/').next().unwrap().len(), 64, "{link}");
    link
}
