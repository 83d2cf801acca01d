//! The event streams of jobs: whole, in order, taken up again, and over when their session is.

use std::time::Duration;

use cac_core::testing;
use futures_util::StreamExt as _;
use serde_json::Value;

use crate::jobs::shell;
use crate::lab::{Lab, PATIENCE, expect};

/// One event of a stream, read as a browser does.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) id: Option<i64>,
    pub(crate) event: String,
    pub(crate) data: String,
}

/// Reads a stream until its end, or until `enough` frames have come.
pub(crate) async fn frames(
    lab: &Lab,
    path: &str,
    session: &str,
    last: Option<i64>,
    enough: usize,
) -> Vec<Frame> {
    let mut request = lab.get(path, session);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut chunks = answer.bytes_stream();
    let (mut bytes, mut frames) = (Vec::new(), Vec::new());
    while frames.len() < enough {
        let chunk = tokio::time::timeout(PATIENCE, chunks.next())
            .await
            .expect("a stream stands still");
        let Some(chunk) = chunk else { break };
        // A chunk may end within a character, but never a frame.
        bytes.extend_from_slice(&chunk.unwrap());
        while let Some(at) = bytes.windows(2).position(|pair| pair == b"\n\n") {
            frames.extend(parse(std::str::from_utf8(&bytes[..at]).unwrap()));
            bytes.drain(..at + 2);
        }
    }
    frames
}

fn parse(text: &str) -> Option<Frame> {
    let mut frame = Frame::default();
    for line in text.lines() {
        let (name, value) = line.split_once(": ")?;
        match name {
            "id" => frame.id = value.parse().ok(),
            "event" => value.clone_into(&mut frame.event),
            "data" => frame.data.push_str(value),
            other => panic!("{other}"),
        }
    }
    Some(frame)
}

#[tokio::test]
async fn streams_are_complete_and_taken_up_again() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let command =
        "for i in 1 2 3 4 5 6; do echo \"line $i\"; sleep 0.15; done; printf 'a\\r\\n\"b\"'";
    let job = shell(&lab, Some("alice"), command).await;
    let path = format!("/api/stream/{job}");
    // Broken off twice on the way, taken up where it was left.
    let mut all: Vec<Frame> = Vec::new();
    for enough in [2, 1, usize::MAX] {
        let last = all.last().and_then(|frame| frame.id);
        all.extend(frames(&lab, &path, &alice, last, enough).await);
    }
    let end = all.pop().unwrap();
    assert_eq!(
        end,
        Frame {
            id: None,
            event: "close".to_owned(),
            data: "Process finished with status: success".to_owned()
        }
    );
    assert!(
        all.windows(2).all(|pair| pair[0].id < pair[1].id),
        "{all:?}"
    );
    let text: String = all
        .iter()
        .map(|frame| serde_json::from_str::<String>(&frame.data).unwrap())
        .collect();
    let stored = expect(
        lab.get(&format!("/jobs/{job}/status"), &alice)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    let stored: String = stored
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["output"].as_str().unwrap())
        .collect();
    assert_eq!(text, stored);
    assert!(
        text.contains("line 1\nline 2\n") && text.ends_with("a\r\n\"b\""),
        "{text:?}"
    );
    // The same again afterwards, typed.
    let typed = frames(
        &lab,
        &format!("/jobs/{job}/stream"),
        &alice,
        None,
        usize::MAX,
    )
    .await;
    let (last, rows) = typed.split_last().unwrap();
    assert_eq!(last.event, "end");
    assert_eq!(
        serde_json::from_str::<Value>(&last.data).unwrap()["status"],
        "success"
    );
    assert!(
        rows.iter()
            .all(|frame| frame.event == "output" && frame.id.is_some()),
        "{rows:?}"
    );
    expect(
        lab.get(&path, &alice)
            .header("last-event-id", "x")
            .send()
            .await
            .unwrap(),
        400,
    )
    .await;
}

/// J16 of the original: a stream that broke off was read again from its beginning, or not at all. Here it is cut a thousand
/// times at random places while the job prints.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_a_thousand_times_has_no_gap() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let command = "for i in $(seq 1 400); do echo \"line $i \u{2705}\"; sleep 0.01; done";
    let job = shell(&lab, Some("alice"), command).await;
    let path = format!("/jobs/{job}/stream");
    let (mut text, mut last, mut cuts, mut over) = (String::new(), 0, 0, false);
    while cuts < 1000 {
        if over {
            // It has ended: begin again, so that the whole log is cut up, too.
            (last, over) = (0, false);
            text.clear();
        }
        let request = lab.get(&path, &alice).header("last-event-id", last);
        let mut chunks = request.send().await.unwrap().bytes_stream();
        // What a client that is cut off has got, to the byte.
        let most = rand::random_range(0..6000);
        let (mut bytes, patience) = (Vec::new(), Duration::from_millis(rand::random_range(0..12)));
        while bytes.len() < most {
            let Ok(Some(chunk)) = tokio::time::timeout(patience, chunks.next()).await else {
                break;
            };
            bytes.extend_from_slice(&chunk.unwrap());
        }
        bytes.truncate(most);
        cuts += 1;
        let got = String::from_utf8_lossy(&bytes).into_owned();
        let whole = got.rfind("\n\n").map_or("", |at| &got[..at]);
        for frame in whole.split("\n\n").filter_map(parse) {
            if let Some(id) = frame.id {
                assert!(id > last, "{id} after {last}");
                last = id;
                let data: Value = serde_json::from_str(&frame.data).unwrap();
                text.push_str(data["output"].as_str().unwrap());
            }
            over |= frame.event == "end";
        }
        if over {
            assert_eq!(
                text,
                testing::log(&lab.core, job).await,
                "after {cuts} cuts"
            );
        }
    }
    assert_eq!(lab.ended(job).await, "success");
    for frame in frames(&lab, &path, &alice, (!over).then_some(last), usize::MAX).await {
        if let (Some(_), false) = (frame.id, over) {
            let data: Value = serde_json::from_str(&frame.data).unwrap();
            text.push_str(data["output"].as_str().unwrap());
        }
    }
    let expected: String = (1..=400).map(|n| format!("line {n} \u{2705}\n")).collect();
    assert_eq!(text, expected);
}

/// A session that ended does not go on listening.
#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let job = shell(&lab, Some("alice"), "true").await;
    let stream = lab
        .get(&format!("/jobs/{job}/stream"), &alice)
        .send()
        .await
        .unwrap();
    expect(lab.post("/logout", &alice).send().await.unwrap(), 200).await;
    let all = tokio::time::timeout(PATIENCE, stream.text())
        .await
        .expect("the stream goes on")
        .unwrap();
    assert!(
        all.starts_with("event: state\n") && !all.contains("event: end"),
        "{all}"
    );
}
