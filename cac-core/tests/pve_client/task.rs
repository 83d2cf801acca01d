//! Waiting for a task: its end, and each log line once, over every trouble on the way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cac_core::pve::{Error, ExitStatus, Upid};
use serde_json::json;

use crate::server::{Server, answer};

const LIMIT: Duration = Duration::from_secs(30);

fn upid() -> Upid {
    "UPID:pve1:0000012B:00066606:6B03ED54:vzcreate:100:svc@pve!api:"
        .parse()
        .unwrap()
}

/// One round of a task: the answer about its state, and how many of the log's lines are there by then.
struct Round {
    status: Vec<u8>,
    lines: Option<usize>,
}

fn running(lines: usize) -> Round {
    Round {
        status: answer("200 OK", r#"{"data":{"status":"running"}}"#),
        lines: Some(lines),
    }
}

fn ended(exit: &str, lines: Option<usize>) -> Round {
    let body = json!({"data": {"status": "stopped", "exitstatus": exit}}).to_string();
    Round {
        status: answer("200 OK", &body),
        lines,
    }
}

fn trouble(status: &str) -> Round {
    Round {
        status: answer(status, ""),
        lines: Some(0),
    }
}

fn parameter(target: &str, name: &str) -> Option<usize> {
    let (_, query) = target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

/// As pveproxy answers about a log of `there` lines, the made-up one of an empty log included.
fn log(target: &str, there: usize) -> Vec<u8> {
    let start = parameter(target, "start").unwrap_or(0);
    let limit = parameter(target, "limit").unwrap_or(50);
    let lines: Vec<_> = (1..=there)
        .skip(start)
        .take(limit)
        .map(|number| json!({"n": number, "t": format!("line {number}")}))
        .collect();
    let body = if there == 0 {
        json!({"data": [{"n": 1, "t": "no content"}], "total": 1})
    } else {
        json!({"data": lines, "total": there})
    };
    answer("200 OK", &body.to_string())
}

/// Plays the rounds; the last one again and again.
async fn playing(rounds: impl IntoIterator<Item = Round>) -> Server {
    let rounds = Arc::new(Mutex::new(rounds.into_iter().collect::<VecDeque<_>>()));
    let log_of = Arc::new(Mutex::new(Some(0)));
    Server::answering(move |request| {
        if request.target.contains("/log?") {
            return match *log_of.lock().unwrap() {
                Some(there) => log(&request.target, there),
                None => answer("403 Permission check failed", ""),
            };
        }
        let mut rounds = rounds.lock().unwrap();
        let status = rounds[0].status.clone();
        *log_of.lock().unwrap() = rounds[0].lines;
        if rounds.len() > 1 {
            rounds.pop_front();
        }
        status
    })
    .await
}

async fn wait(server: &Server) -> (Result<ExitStatus, Error>, Vec<String>) {
    let mut lines = Vec::new();
    let end = server
        .client()
        .task_wait(&upid(), LIMIT, |line| lines.push(line))
        .await;
    (end, lines)
}

fn lines(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("line {number}")).collect()
}

#[tokio::test]
async fn each_line_once() {
    let rounds = [
        running(0),
        running(0),
        running(1),
        running(1),
        running(7),
        ended("OK", Some(9)),
    ];
    let (end, seen) = wait(&playing(rounds).await).await;
    assert_eq!(end, Ok(ExitStatus::Ok));
    assert_eq!(seen, lines(9));
}

#[tokio::test]
async fn long_logs_come_in_pages() {
    let (end, seen) = wait(&playing([ended("WARNINGS: 2", Some(2500))]).await).await;
    assert_eq!(end, Ok(ExitStatus::Warnings(2)));
    assert_eq!(seen, lines(2500));
}

#[tokio::test]
async fn trouble_on_the_way_is_waited_out() {
    let rounds = [
        trouble("400 Parameter verification failed."),
        running(2),
        trouble("595 Connection refused"),
        trouble("596 Connection timed out"),
        trouble(
            "500 RPCEnvironment init request failed: Unable to load access control list: Connection refused",
        ),
        running(3),
        ended("unable to create CT 100 - no space", Some(4)),
    ];
    let mut rounds = rounds;
    let unknown = r#"{"data":null,"message":"Parameter verification failed.\n","errors":{"upid":"no such task"}}"#;
    rounds[0].status = answer("400 Parameter verification failed.", unknown);
    let (end, seen) = wait(&playing(rounds).await).await;
    assert_eq!(
        end,
        Ok(ExitStatus::Failed(
            "unable to create CT 100 - no space".to_owned()
        ))
    );
    assert_eq!(seen, lines(4));
}

#[tokio::test]
async fn the_end_counts_though_its_log_is_refused() {
    let (end, seen) = wait(&playing([ended("OK", None)]).await).await;
    assert_eq!(end, Ok(ExitStatus::Ok));
    assert!(seen.is_empty());
}

#[tokio::test]
async fn a_refusal_ends_the_waiting() {
    let (end, _) = wait(
        &playing([trouble(
            "403 Permission check failed (/nodes/pve1, Sys.Audit)",
        )])
        .await,
    )
    .await;
    assert!(end.unwrap_err().is_forbidden());
}

#[tokio::test]
async fn the_limit_ends_the_waiting_but_not_the_task() {
    let server = playing([running(1), trouble("595 Connection refused")]).await;
    let mut seen = Vec::new();
    let limit = Duration::from_millis(400);
    let end = server
        .client()
        .task_wait(&upid(), limit, |line| seen.push(line))
        .await;
    let error = end.unwrap_err();
    assert!(
        matches!(error, Error::MaybeSent { read: true, .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains("no end within 0.4 s") && text.contains("595 Connection refused"),
        "{text}"
    );
    assert_eq!(seen, lines(1));
}

/// A job runner moves this future between threads.
#[test]
fn waiting_can_move_between_threads() {
    fn send<T: Send>(_: &T) {}
    let target = cac_core::pve::Target {
        api_url: "https://127.0.0.1:1".to_owned(),
        tls: cac_core::pve::Tls::Off,
        auth: crate::server::token(),
    };
    let pve = cac_core::pve::Pve::new(target).unwrap();
    let upid = upid();
    let mut count = 0;
    send(&pve.task_wait(&upid, LIMIT, |line| count += line.len()));
}
