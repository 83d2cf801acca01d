//! `/jobs` and `/status`; their event streams are `streams.rs`.

use std::time::Duration;

use cac_core::args;
use serde_json::{Value, json};

use crate::lab::{Lab, expect};
use crate::streams::frames;

pub(crate) async fn shell(lab: &Lab, owner: Option<&str>, command: &str) -> i64 {
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
