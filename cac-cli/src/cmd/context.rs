//! `cac context`: the portals that somebody is signed in at.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Common;
use crate::context::Contexts;
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Context {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the contexts; commands go to the one with a star
    List,
    /// Let commands go to another portal from now on
    Use {
        /// The context's name
        name: String,
    },
}

impl Context {
    pub(crate) fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        match self.command {
            Command::List => list(&Contexts::load()?, common.json)?,
            Command::Use { name } => {
                Contexts::change(|contexts| {
                    let (found, _) = contexts.find(Some(&name))?;
                    contexts.current = Some(found.to_owned());
                    Ok(())
                })?;
                print::done(&format!("Commands go to `{name}` now."), common.json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(contexts: &Contexts, as_json: bool) -> Result<(), Failure> {
    let current = |name: &String| contexts.current.as_ref() == Some(name);
    let all = contexts.contexts.iter();
    if as_json {
        let rows = all.map(|(name, context)| {
            json!({"name": name, "url": context.url, "username": context.username, "current": current(name)})
        });
        return print::json(&rows.collect::<Vec<_>>());
    }
    if contexts.contexts.is_empty() {
        print::note("You are not signed in anywhere: `cac login https://portal.example.org`.");
        return Ok(());
    }
    let rows = all.map(|(name, context)| {
        let star = if current(name) { "*" } else { "" };
        let username = context.username.clone().unwrap_or_default();
        [star.to_owned(), name.clone(), context.url.clone(), username]
    });
    print::table(["", "NAME", "URL", "USER"], rows)
}
