//! `cac job`: durable work and its output.

use std::collections::HashMap;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::{Common, shown, time};
use crate::api::types;
use crate::follow::{self, Show};
use crate::portal::{Portal, Told as _};
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Job {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List jobs, newest last
    List {
        /// Only those that worked on this container; its host name or id
        #[arg(long, value_name = "CONTAINER")]
        container: Option<String>,
        /// How many at most, from the newest back
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
    /// Show one job
    Show(Which),
    /// Print what a job wrote, however it ended
    Logs {
        #[command(flatten)]
        job: Which,
        /// Stay until it has ended
        #[arg(long, short)]
        follow: bool,
    },
    /// Watch a job to its end; fails if the job does
    Follow(Which),
    /// Stop a job
    Cancel(Which),
    /// Add a job: a task that the administrator describes, or for admins a shell command
    Run(Run),
}

#[derive(Args)]
struct Which {
    /// The job's id
    #[arg(value_name = "JOB")]
    id: i64,
}

#[derive(Args)]
struct Run {
    /// The task's name
    #[arg(required_unless_present = "command")]
    task: Option<String>,
    /// A parameter of the task, as NAME=VALUE; may be given several times
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parameter)]
    parameter: Vec<(String, String)>,
    /// A shell command instead of a task, for admins
    #[arg(long, conflicts_with_all = ["task", "parameter"])]
    command: Option<String>,
    /// Not before this time, such as 2030-01-31T15:00:00Z
    #[arg(long, value_name = "TIME")]
    start_after: Option<DateTime<Utc>>,
    /// Do not wait for it
    #[arg(long, short)]
    detach: bool,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "give NAME=VALUE".to_owned())
}

impl Job {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let portal = Portal::open(common)?;
        let json = common.json;
        match self.command {
            Command::List { container, limit } => {
                let container = match container {
                    Some(name) => Some(portal.container(&name).await?.id),
                    None => None,
                };
                list(&newest(&portal, container, limit).await?, json)?;
            }
            Command::Show(one) => {
                show(
                    &portal.client.job_find().id(one.id).send().await.told()?,
                    json,
                )?;
            }
            Command::Logs { job, follow } => output(&portal, job.id, follow, json).await?,
            Command::Follow(one) => {
                let job = follow::finished(&portal, one.id, Show::Progress.unless(json)).await?;
                if json {
                    print::json(&job)?;
                }
            }
            Command::Cancel(one) => {
                let job = portal.client.job_cancel().id(one.id).send().await.told()?;
                show(&job, json)?;
            }
            Command::Run(run) => run.run(&portal, json).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Run {
    async fn run(self, portal: &Portal, json: bool) -> Result<(), Failure> {
        let parameters: HashMap<String, String> = self.parameter.into_iter().collect();
        let wanted = types::NewJob {
            command: self.command,
            task: self.task,
            parameters,
            start_after: self.start_after,
        };
        let job = portal
            .client
            .job_create()
            .body(wanted)
            .send()
            .await
            .told()?;
        if self.detach {
            return show(&job, json);
        }
        let job = follow::finished(portal, job.id, Show::Output.unless(json)).await?;
        if json { print::json(&job) } else { Ok(()) }
    }
}

/// The last so many jobs, oldest first as the portal lists them.
pub(crate) async fn newest(
    portal: &Portal,
    container: Option<i64>,
    limit: i64,
) -> Result<Vec<types::Job>, Failure> {
    let page = |offset: i64| {
        let mut request = portal.client.job_list().limit(limit).offset(offset);
        if let Some(container) = container {
            request = request.container(container);
        }
        request.send()
    };
    let first = page(0).await;
    let total = first.as_ref().ok().and_then(|answer| {
        let total = answer.headers().get("x-total-count")?;
        total.to_str().ok()?.parse::<i64>().ok()
    });
    match total.map(|total| total - limit) {
        Some(offset) if offset > 0 => page(offset).await.told(),
        _ => first.told(),
    }
}

fn list(rows: &[types::Job], json: bool) -> Result<(), Failure> {
    if json {
        return print::json(&rows);
    }
    let rows = rows.iter().map(|job| {
        [
            job.id.to_string(),
            job.status.to_string(),
            shown(job.created_by.as_ref()),
            time(Some(&job.created_at)),
            job.command.clone(),
        ]
    });
    print::table(["ID", "STATUS", "BY", "ASKED FOR", "WORK"], rows)
}

fn show(job: &types::Job, json: bool) -> Result<(), Failure> {
    if json {
        return print::json(job);
    }
    print::sheet([
        ("job", job.id.to_string()),
        ("work", job.command.clone()),
        ("status", job.status.to_string()),
        ("reason", shown(job.reason.as_ref())),
        ("place", shown(job.place.as_ref())),
        ("by", shown(job.created_by.as_ref())),
        ("container", shown(job.container_id.as_ref())),
        ("asked for", time(Some(&job.created_at))),
        ("not before", time(job.start_after.as_ref())),
        ("began", time(job.started_at.as_ref())),
        ("ended", time(job.finished_at.as_ref())),
    ])
}

/// What a job wrote so far, or to its end.
pub(crate) async fn output(
    portal: &Portal,
    id: i64,
    follow: bool,
    json: bool,
) -> Result<(), Failure> {
    if follow && !json {
        follow::follow(portal, id, Show::Output).await?;
        return Ok(());
    }
    if follow {
        follow::follow(portal, id, Show::Nothing).await?;
    }
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let page = portal
            .client
            .job_output_list()
            .id(id)
            .limit(1000)
            .offset(offset);
        let page = page.send().await.told()?;
        let last = page.len() < 1000;
        if !json {
            let text = page.iter().map(|row| row.output.as_str());
            follow::print_output(&text.collect::<String>())?;
        }
        offset += i64::try_from(page.len())?;
        if json {
            all.extend(page);
        }
        if last {
            break;
        }
    }
    if json { print::json(&all) } else { Ok(()) }
}
