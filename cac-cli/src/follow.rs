//! A job as it goes on: a bar with its steps on a terminal, its lines elsewhere. A stream that breaks is taken up where it was.

use std::io::IsTerminal as _;
use std::time::Duration;

use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use progenitor_client::ClientInfo as _;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::api::types::{Job, JobOutput, JobState};
use crate::portal::{Portal, Told as _, by_status, unreachable};
use crate::print::{self, Exit, Failure};

/// How often a broken stream is taken up in a row before it is given up; a second apart.
const TRIES: u32 = 30;

/// A line that is longer is shown in parts.
const LONGEST_LINE: usize = 64 * 1024;

/// What a job wrote: exactly so in a pipe, without what a terminal would obey on one.
pub(crate) fn print_output(text: &str) -> Result<(), Failure> {
    match std::io::stdout().is_terminal() {
        true => print::data(text),
        false => print::raw(text),
    }
}

/// How a job's lines are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// A bar where somebody looks, else plain lines.
    Progress,
    /// Exactly what the job wrote.
    Output,
    /// Nothing: the caller shows the result as JSON.
    Nothing,
}

impl Show {
    /// Nothing where the result is JSON.
    pub(crate) fn unless(self, json: bool) -> Self {
        if json { Self::Nothing } else { self }
    }
}

/// What shows it.
struct Screen {
    show: Show,
    bar: Option<ProgressBar>,
    /// The begin of a line whose end has not come yet.
    rest: String,
}

impl Screen {
    fn new(show: Show) -> Self {
        let looked_at = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let bar = (show == Show::Progress && looked_at).then(|| {
            let style = "{spinner} {bar:24} {pos}/{len} {msg} ({elapsed})";
            let style = ProgressStyle::with_template(style);
            let bar = ProgressBar::new(1).with_message("waits for a runner");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            show,
            bar,
            rest: String::new(),
        }
    }

    fn output(&mut self, text: &str) -> Result<(), Failure> {
        if self.show == Show::Output {
            return print_output(text);
        }
        self.rest.push_str(text);
        while let Some((line, rest)) = self.rest.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.rest = rest;
            self.line(&line)?;
        }
        if self.rest.len() > LONGEST_LINE {
            let line = std::mem::take(&mut self.rest);
            self.line(&line)?;
        }
        Ok(())
    }

    /// Before its first step, and for work without any.
    fn state(&self, job: &Job) {
        if let Some(bar) = self
            .bar
            .as_ref()
            .filter(|_| job.status != JobState::Pending)
        {
            bar.set_message("is running");
        }
    }

    fn line(&self, line: &str) -> Result<(), Failure> {
        // A terminal obeys control characters, and a job's lines quote other programs.
        let line = print::harmless(line);
        match &self.bar {
            _ if self.show == Show::Nothing => Ok(()),
            None => print::data(&(line + "\n")),
            Some(bar) => {
                match step(&line) {
                    Some((number, of, title)) => {
                        bar.set_length(of);
                        // This one has only begun.
                        bar.set_position(number.saturating_sub(1).min(of));
                        bar.set_message(title.to_owned());
                    }
                    None => bar.println(format!("  {line}")),
                }
                Ok(())
            }
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        if !self.rest.is_empty() {
            let line = std::mem::take(&mut self.rest);
            self.line(&line)?;
        }
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        Ok(())
    }
}

/// `[2/7] reserve a VMID`
fn step(line: &str) -> Option<(u64, u64, &str)> {
    let (numbers, title) = line.strip_prefix('[')?.split_once("] ")?;
    let (number, of) = numbers.split_once('/')?;
    let (number, of) = (number.parse().ok()?, of.parse().ok()?);
    (number > 0 && number <= of).then_some((number, of, title))
}

/// Shows a job to its end; the job as it ended.
pub(crate) async fn follow(portal: &Portal, id: i64, show: Show) -> Result<Job, Failure> {
    let mut screen = Screen::new(show);
    let mut last = None;
    let mut tries = 0;
    let ended = loop {
        match once(portal, id, (&mut last, &mut tries), &mut screen).await {
            Ok(Some(job)) => break job,
            Err(Broken::Refused(failure)) => return Err(failure),
            Ok(None) | Err(Broken::Off(_)) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(None) => return Err(gone(id, "it ends the stream again and again")),
            Err(Broken::Off(why)) => return Err(gone(id, &why)),
        }
    };
    screen.end()?;
    Ok(ended)
}

fn gone(id: i64, why: &str) -> Failure {
    Exit::try_again(&format!(
        "The portal is away ({why}). The job goes on without it: `cac job follow {id}`."
    ))
}

/// Follows a job that must end well.
pub(crate) async fn finished(portal: &Portal, id: i64, show: Show) -> Result<Job, Failure> {
    let job = follow(portal, id, show).await?;
    if show == Show::Nothing && job.status != JobState::Success {
        print::json(&job)?;
    }
    let because = |job: &Job| job.reason.clone().unwrap_or_default();
    match job.status {
        JobState::Success => Ok(job),
        JobState::Cancelled => Err(Exit::failed(&format!("Job {id} was cancelled."))),
        _ => Err(Exit::failed(&format!("Job {id} failed: {}", because(&job)))),
    }
}

enum Broken {
    /// Try again.
    Off(String),
    Refused(Failure),
}

/// One stream, as long as it holds.
async fn once(
    portal: &Portal,
    id: i64,
    (last, tries): (&mut Option<String>, &mut u32),
    screen: &mut Screen,
) -> Result<Option<Job>, Broken> {
    let mut request = portal
        .client
        .client()
        .get(format!("{}/jobs/{id}/stream", portal.url));
    if let Some(last) = last.as_deref() {
        request = request.header("Last-Event-ID", last);
    }
    let answer = request.send().await.map_err(|error| {
        let why = unreachable(&error);
        Broken::Off(why.to_string())
    })?;
    if answer.status() != StatusCode::OK {
        // The same refusal in words, by an operation that has them.
        let status = answer.status();
        return Err(match portal.client.job_find().id(id).send().await.told() {
            Err(failure) if status.is_client_error() => Broken::Refused(failure),
            _ if status.is_server_error() => Broken::Off(format!("status {status}")),
            _ => Broken::Refused(by_status(status.as_u16())),
        });
    }
    let mut events = answer.bytes_stream().eventsource();
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| Broken::Off(error.to_string()))?;
        // It is there again.
        *tries = 0;
        match event.event.as_str() {
            "output" => {
                let output: JobOutput = read(&event.data)?;
                screen.output(&output.output).map_err(Broken::Refused)?;
                *last = Some(event.id);
            }
            "state" => screen.state(&read(&event.data)?),
            "end" => return Ok(Some(read(&event.data)?)),
            _ => {}
        }
    }
    Ok(None)
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Broken> {
    serde_json::from_str(text).map_err(|error| {
        let text = format!("The portal's event is not understood: {error}");
        Broken::Refused(Exit::failed(&text))
    })
}
