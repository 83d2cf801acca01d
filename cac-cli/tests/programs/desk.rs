//! A demo, and people who work with it by `cac`.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Running, command, own_address, text};

/// A demo, and a home for somebody who works with it.
pub(crate) struct Desk {
    pub(crate) demo: Running,
    pub(crate) url: String,
    #[allow(
        dead_code,
        reason = "not every suite looks into it; it lasts as long as the demo"
    )]
    pub(crate) data: TempDir,
}

/// Somebody with a home of their own.
pub(crate) struct Person {
    pub(crate) home: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// With these variables.
    pub(crate) fn with(vars: &[(&str, &str)]) -> Self {
        Self::start(&["--no-nginx"], vars)
    }

    /// With these words more for the demo, and these variables.
    pub(crate) fn start(more: &[&str], vars: &[(&str, &str)]) -> Self {
        let (data, ip) = (tempfile::tempdir().unwrap(), own_address());
        let listen = format!("{ip}:8080");
        let dir = data.path().to_str().unwrap().to_owned();
        let mut words = vec!["demo", "--listen", &listen, "--data-dir", &dir];
        words.extend(more);
        let mut demo = Running::start("cac", &words, vars);
        demo.until(|out| out.contains("Ctrl-C ends it.\n").then_some(()));
        Self {
            demo,
            url: format!("http://{listen}"),
            data,
        }
    }

    pub(crate) fn person(&self, name: &str) -> Person {
        let person = Person {
            home: tempfile::tempdir().unwrap(),
        };
        let password = person.file("password", &format!("{name}-demo\n"));
        let password = password.to_str().unwrap();
        let said = person.good(&["login", &self.url, "-u", name, "--password-file", password]);
        assert!(said.contains(&format!("as {name}")), "{said}");
        person
    }
}

impl Person {
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.home.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        command(
            "cac",
            words,
            &[("HOME", self.home.path().to_str().unwrap())],
        )
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub(crate) fn good(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{words:?}: {out}{err}");
        out
    }

    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let out = self.good(&[words, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}: {out}"))
    }

    /// Standard error of a command that must end so.
    pub(crate) fn bad(&self, status: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{words:?}: {out}{err}");
        assert!(!err.is_empty(), "{words:?} says nothing");
        err
    }
}
