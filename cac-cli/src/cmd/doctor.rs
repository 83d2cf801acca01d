//! `cac doctor`: what an installation stands on, and what to do where something is wrong.

use std::process::ExitCode;

use cac_core::config::environment;
use cac_core::doctor::{self, Finding, State};
use cac_core::program;
use clap::Args;

use super::Common;
use crate::print::{self, Failure};

#[derive(Args)]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let vars = environment()?;
        program::log(&vars, "error")?;
        let found = doctor::examine(&vars).await;
        if common.json {
            print::json(&found)?;
        } else {
            print::data(&found.iter().map(line).collect::<String>())?;
        }
        Ok(if doctor::is_bad(&found) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn line(one: &Finding) -> String {
    let state = match one.state {
        State::Good => "good",
        State::Note => "note",
        State::Bad => "BAD ",
    };
    format!("{state}  {}: {}\n", one.about, one.message)
}
