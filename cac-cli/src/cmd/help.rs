//! `cac completions` and `cac man`: help for shells and for `man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cac;
use crate::print::{self, Failure};

#[derive(Args)]
pub(crate) struct Completions {
    /// For this shell
    shell: Shell,
}

#[derive(Args)]
pub(crate) struct Man {
    /// The folder for them, such as /usr/local/share/man/man1
    dir: PathBuf,
}

impl Completions {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cac::command(), "cac", &mut text);
        print::raw(&String::from_utf8_lossy(&text))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Man {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        std::fs::create_dir_all(&self.dir)
            .and_then(|()| clap_mangen::generate_to(Cac::command(), &self.dir))
            .map_err(|error| format!("{}: {error}", self.dir.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
