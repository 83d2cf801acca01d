//! `/jobs`, `/api/stream` and `/status`.

use std::time::Duration;

use cac_core::{args, testing};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::lab::{Lab, PATIENCE, expect};

/// One event of a stream, read as a browser does.
#[derive(Debug, Default, Clone, PartialEq)]
struct Frame {
    id: Option<i64>,
    event: String,
    data: String,
}

/// Reads a stream until its end, or until `enough` frames have come.
async fn frames(
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

async fn shell(lab: &Lab, owner: Option<&str>, command: &str) -> i64 {
    let now = chrono::Utc::now();
    let sql = r#"INSERT INTO "Jobs" ("command", "status", "createdBy", "createdAt", "updatedAt") VALUES (?, 'pending', ?, ?, ?)"#;
    lab.core
        .db
        .exec(sql, args![command, owner, now, now])
        .await
        .unwrap();
    let row = lab
        .core
        .db
        .one(r#"SELECT MAX("id") AS "id" FROM "Jobs""#, vec![])
        .await
        .unwrap();
    lab.core.wake.jobs();
    row.get("id").unwrap()
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

#[tokio::test]
async fn the_seeds_shapes() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let job = shell(&lab, Some("alice"), "echo hello; exit 3").await;
    assert_eq!(lab.ended(job).await, "failure");
    let found = expect(
        lab.get(&format!("/jobs/{job}"), &alice)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert_eq!(
        (&found["id"], &found["status"], &found["createdBy"]),
        (&json!(job), &json!("failure"), &json!("alice"))
    );
    for field in ["command", "createdAt", "updatedAt", "reason"] {
        assert!(found[field].is_string(), "{field}: {found}");
    }
    let rows = expect(
        lab.get(&format!("/jobs/{job}/status?limit=5000"), &alice)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert_eq!(rows[0]["jobId"], job);
    let none = expect(
        lab.get(&format!("/jobs/{job}/status?offset=1000"), &alice)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert_eq!(none, json!([]));
    for bad in ["limit=x", "offset=-1"] {
        expect(
            lab.get(&format!("/jobs/{job}/status?{bad}"), &alice)
                .send()
                .await
                .unwrap(),
            400,
        )
        .await;
    }
    let list = lab.get("/jobs", &alice).send().await.unwrap();
    assert_eq!(list.headers()["x-total-count"], "1");
    assert_eq!(expect(list, 200).await[0], found);
}

/// J9 of the original: rows of output were ordered by a time of whole seconds. Here the times run backwards.
#[tokio::test]
async fn output_comes_in_the_order_of_its_rows_whatever_their_times() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let job = shell(&lab, Some("alice"), "true").await;
    let sql = r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
    for number in 0..20 {
        let time = chrono::Utc::now() - chrono::Duration::seconds(number / 3);
        let values = args![job, format!("row {number}\n"), time, time];
        lab.core.db.exec(sql, values).await.unwrap();
    }
    let path = format!("/jobs/{job}/status?limit=15&offset=2");
    let rows = expect(lab.get(&path, &alice).send().await.unwrap(), 200).await;
    let rows = rows.as_array().unwrap().iter();
    let texts: Vec<&str> = rows.map(|row| row["output"].as_str().unwrap()).collect();
    let expected: Vec<String> = (2..17).map(|number| format!("row {number}\n")).collect();
    assert_eq!(texts, expected);
}

/// J10 of the original: what is no number, or below zero, was an internal error, and nothing told how many there are.
#[tokio::test]
async fn bad_pages_and_bad_ids_are_refused_and_the_total_is_told() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    for _ in 0..3 {
        shell(&lab, Some("alice"), "true").await;
    }
    for bad in [
        "limit=x",
        "limit=-1",
        "offset=-1",
        "offset=1e3",
        "limit=99999999999999999999",
    ] {
        for path in ["/jobs", "/jobs/1/status"] {
            let answer = lab
                .get(&format!("{path}?{bad}"), &admin)
                .send()
                .await
                .unwrap();
            let problem = expect(answer, 400).await;
            assert!(problem["detail"].is_string(), "{path}?{bad}: {problem}");
        }
    }
    // What is no number is refused; a number that no job has is not found.
    for (id, status) in [
        ("x", 400),
        ("99999999999999999999", 400),
        ("-1", 404),
        ("0", 404),
        ("9223372036854775807", 404),
    ] {
        let answer = lab
            .get(&format!("/jobs/{id}"), &admin)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{id}");
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert!(problem["detail"].is_string(), "{id}: {problem}");
    }
    let page = lab
        .get("/jobs?limit=2&offset=1", &admin)
        .send()
        .await
        .unwrap();
    assert_eq!(page.headers()["x-total-count"], "3");
    assert_eq!(expect(page, 200).await.as_array().unwrap().len(), 2);
}

/// S12 of the original; and jobs without an owner are the admins'.
#[tokio::test]
async fn other_peoples_jobs_do_not_exist() {
    let lab = Lab::idle(&[]).await;
    let (bob, admin) = (lab.login("bob").await, lab.login("admin").await);
    for owner in [Some("alice"), None] {
        let job = shell(&lab, owner, "true").await;
        for path in [
            format!("/jobs/{job}"),
            format!("/jobs/{job}/status"),
            format!("/jobs/{job}/stream"),
            format!("/api/stream/{job}"),
            format!("/status/{job}"),
        ] {
            expect(lab.get(&path, &bob).send().await.unwrap(), 404).await;
        }
        expect(
            lab.post(&format!("/jobs/{job}/cancel"), &bob)
                .send()
                .await
                .unwrap(),
            404,
        )
        .await;
        expect(
            lab.get(&format!("/jobs/{job}"), &admin)
                .send()
                .await
                .unwrap(),
            200,
        )
        .await;
    }
    let list = expect(lab.get("/jobs", &bob).send().await.unwrap(), 200).await;
    assert_eq!(list, json!([]));
}

#[tokio::test]
async fn a_cancel_stops_the_work() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let job = shell(&lab, Some("alice"), "echo begun; sleep 600").await;
    let begun = frames(&lab, &format!("/api/stream/{job}"), &alice, None, 1).await;
    assert!(begun[0].data.contains("begun"), "{begun:?}");
    let asked = std::time::Instant::now();
    expect(
        lab.post(&format!("/jobs/{job}/cancel"), &alice)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert_eq!(lab.ended(job).await, "cancelled");
    assert!(asked.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn an_admin_adds_a_shell_command() {
    let lab = Lab::new().await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let body = json!({"command": "echo hello"});
    let post = |session: &str, body: &Value| lab.post("/jobs", session).json(body).send();
    expect(post(&alice, &body).await.unwrap(), 403).await;
    let answer = post(&admin, &body).await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let job = expect(answer, 201).await;
    let id = job["id"].as_i64().unwrap();
    assert_eq!(location, format!("{}/jobs/{id}", lab.url));
    assert_eq!(
        (&job["command"], &job["createdBy"]),
        (&json!("echo hello"), &json!("admin"))
    );
    assert_eq!(lab.ended(id).await, "success");
    let rows = lab
        .get(&format!("/jobs/{id}/status"), &admin)
        .send()
        .await
        .unwrap();
    assert_eq!(expect(rows, 200).await[0]["output"], "hello\n");
    // Somebody else's job does not exist.
    let seen = lab
        .get(&format!("/jobs/{id}"), &alice)
        .send()
        .await
        .unwrap();
    expect(seen, 404).await;
    // As the seed's clients send it, too.
    let form = lab.post("/jobs", &admin).form(&[("command", "exit 3")]);
    let id = expect(form.send().await.unwrap(), 201).await["id"]
        .as_i64()
        .unwrap();
    assert_eq!(lab.ended(id).await, "failure");
    for bad in [
        json!({}),
        json!({"command": " "}),
        json!({"command": "x".repeat(2001)}),
        json!({"command": 7}),
    ] {
        let problem = expect(post(&admin, &bad).await.unwrap(), 400).await;
        assert!(problem["errors"]["command"].is_string(), "{problem}");
    }
}

#[tokio::test]
async fn a_key_adds_one_job_also_at_the_same_instant() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    let add = |command: &'static str| {
        let request = lab.post("/jobs", &admin).header("idempotency-key", "once");
        request.json(&json!({"command": command})).send()
    };
    let answers = futures_util::future::join_all((0..8).map(|_| add("true"))).await;
    let mut ids = std::collections::BTreeSet::new();
    for answer in answers {
        ids.insert(expect(answer.unwrap(), 201).await["id"].as_i64().unwrap());
    }
    assert_eq!(ids.len(), 1);
    expect(add("false").await.unwrap(), 409).await;
}

#[tokio::test]
async fn switched_off_shell_jobs_are_refused_everywhere() {
    let lab = Lab::with(&[("SHELL_JOBS", "off")]).await;
    let admin = lab.login("admin").await;
    let answer = lab
        .post("/jobs", &admin)
        .json(&json!({"command": "true"}))
        .send()
        .await
        .unwrap();
    let problem = expect(answer, 403).await;
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("SHELL_JOBS=off"),
        "{problem}"
    );
    let by_hand = shell(&lab, None, "true").await;
    assert_eq!(lab.ended(by_hand).await, "failure");
}

/// Named tasks over HTTP: who may, what is told, and a start in the future.
#[tokio::test]
async fn a_task_is_started_by_whom_it_allows() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tasks.toml");
    let text = "[tasks.greet]\nargv = [\"/bin/echo\", \"hello {who}\"]\nallow = [\"alice\"]\n[tasks.greet.parameters.who]\n";
    std::fs::write(&file, text).unwrap();
    let lab = Lab::with(&[("JOB_TASKS_FILE", file.to_str().unwrap())]).await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let body = json!({"task": "greet", "parameters": {"who": "you; id"}});
    let post = |session: &str, body: &Value| lab.post("/jobs", session).json(body).send();
    let job = expect(post(&alice, &body).await.unwrap(), 201).await;
    assert_eq!(
        (&job["kind"], &job["command"]),
        (&json!("task"), &json!("# greet who=you; id"))
    );
    let id = job["id"].as_i64().unwrap();
    assert_eq!(lab.ended(id).await, "success");
    let rows = lab.get(&format!("/jobs/{id}/status"), &alice).send();
    let rows = expect(rows.await.unwrap(), 200).await;
    assert_eq!(rows[0]["output"], "hello you; id\n");
    let problem = expect(post(&bob, &body).await.unwrap(), 400).await;
    assert!(problem["errors"]["task"].is_string(), "{problem}");
    for (bad, field) in [
        (json!({"task": "greet"}), "parameters"),
        (json!({"task": "greet", "command": "true"}), "task"),
        (json!({"task": "other"}), "task"),
        (json!({"task": "greet", "parameters": ["x"]}), "parameters"),
        (
            json!({"task": "greet", "parameters": {"who": "x"}, "startAfter": "soon"}),
            "startAfter",
        ),
    ] {
        let problem = expect(post(&alice, &bad).await.unwrap(), 400).await;
        assert!(problem["errors"][field].is_string(), "{problem}");
    }
    let later = chrono::Utc::now() + chrono::Duration::hours(1);
    let body = json!({"task": "greet", "parameters": {"who": "x"}, "startAfter": later});
    let job = expect(post(&alice, &body).await.unwrap(), 201).await;
    assert_eq!(job["status"], "pending");
    let start: chrono::DateTime<chrono::Utc> =
        serde_json::from_value(job["startAfter"].clone()).unwrap();
    assert!((later - start).num_seconds().abs() < 2, "{job}");
    let id = job["id"].as_i64().unwrap();
    let cancel = lab.post(&format!("/jobs/{id}/cancel"), &alice).send();
    let job = expect(cancel.await.unwrap(), 200).await;
    assert_eq!(job["status"], "cancelled");
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
