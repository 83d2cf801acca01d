//! The pages of jobs, tokens, sessions and the audit log, by plain forms as a browser without script does it.

use serde_json::json;

use crate::browse::{has, location, page, submit};
use crate::lab::{HTML, Lab, expect};

const ONE: &str = "<th scope=\"row\">";

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_login() {
    let lab = Lab::idle(&[]).await;
    for path in ["/jobs", "/tokens", "/sessions", "/audit"] {
        let answer = lab.get(path, "").header("accept", HTML).send().await;
        let answer = answer.unwrap();
        let there = format!("/login?redirect=%2F{}", &path[1..]);
        assert_eq!(location(&answer), (303, there.as_str()));
    }
}

#[tokio::test]
async fn jobs_are_listed_stopped_and_asked_for_again() {
    let lab = Lab::idle(&[]).await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let admin = lab.login("admin").await;
    let (container, made) = lab.create(&alice, "hers").await;
    let lines = "echo '<b>'\r\necho two";
    let asked = submit(
        &lab,
        "/jobs",
        &admin,
        &[("command", lines), ("startAfter", "")],
    )
    .await;
    let shell = made + 1;
    let progress = format!("/status/{shell}");
    assert_eq!(location(&asked), (303, progress.as_str()));
    let stored = lab.get(&format!("/jobs/{shell}"), &admin).send().await;
    let stored = expect(stored.unwrap(), 200).await;
    assert_eq!(stored["command"], "echo '<b>'\necho two");

    let hers = page(&lab, "/jobs", &alice).await;
    let link = format!("<a href=\"/containers/{container}\">hers</a>");
    let stop = format!("action=\"/jobs/{made}/cancel\"");
    has(&hers, &["Your jobs", &link, &stop, ">pending</span>"]);
    assert!(
        !hers.contains("echo") && !hers.contains("name=\"command\""),
        "{hers}"
    );
    has(&page(&lab, "/jobs", &bob).await, &["There is no job yet."]);
    let all = page(&lab, "/jobs", &admin).await;
    has(&all, &["&lt;b&gt;", "name=\"command\"", ">alice</td>"]);
    let at = |id: i64| all.find(&format!(">Job {id}<")).unwrap();
    assert!(at(shell) < at(made), "newest first");

    // A filter's form sends what is left empty, too.
    let found = page(&lab, "/jobs?status=pending&user=&container=", &admin).await;
    assert_eq!(found.matches(ONE).count(), 2, "{found}");
    let found = page(&lab, "/jobs?user=alice", &admin).await;
    assert_eq!(found.matches(ONE).count(), 1, "{found}");
    let found = page(&lab, "/jobs?status=success", &admin).await;
    has(&found, &["There is no such job."]);
    let first = page(&lab, "/jobs?limit=1", &admin).await;
    has(&first, &["href=\"/jobs?limit=1&amp;offset=1\">After</a>"]);
    let answer = lab.get("/jobs?status=odd", &admin).send().await.unwrap();
    expect(answer, 400).await;

    let one = lab
        .get(&format!("/jobs/{shell}"), &admin)
        .header("accept", HTML);
    let one = one.send().await.unwrap();
    assert_eq!(location(&one), (303, progress.as_str()));
    let stopped = submit(&lab, &format!("/jobs/{shell}/cancel"), &admin, &[]).await;
    assert_eq!(location(&stopped), (303, progress.as_str()));
    let all = page(&lab, "/jobs", &admin).await;
    let again = format!("aria-label=\"Run again: job {shell}\"");
    has(&all, &["badge off\">cancelled<", &again]);
    let again = submit(&lab, "/jobs", &admin, &[("command", lines)]).await;
    let next = format!("/status/{}", shell + 1);
    assert_eq!(location(&again), (303, next.as_str()));
}

#[tokio::test]
async fn a_refused_command_is_shown_again() {
    let lab = Lab::idle(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let form = [("command", "echo <i>"), ("startAfter", "2999-01-01T00:00")];
    let refused = submit(&lab, "/jobs", &admin, &form).await;
    assert_eq!(refused.status(), 400);
    let refused = refused.text().await.unwrap();
    has(
        &refused,
        &[
            "echo &lt;i&gt;</textarea>",
            "2999-01-01T00:00",
            "id=\"startAfter-problem\"",
        ],
    );
    let refused = submit(&lab, "/jobs", &alice, &[("command", "true")]).await;
    assert_eq!(refused.status(), 403);
    has(
        &refused.text().await.unwrap(),
        &["Only admins may add shell commands."],
    );
}

#[tokio::test]
async fn a_task_is_started_by_a_form_and_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tasks.toml");
    let text = "[tasks.greet]\nargv = [\"/bin/echo\", \"{who}\"]\nallow = [\"alice\"]\n[tasks.greet.parameters.who]\n";
    std::fs::write(&file, text).unwrap();
    let lab = Lab::idle(&[("JOB_TASKS_FILE", file.to_str().unwrap())]).await;
    let alice = lab.login("alice").await;
    let body = json!({"task": "greet", "parameters": {"who": "\"you\" & me"}});
    let asked = lab.post("/jobs", &alice).json(&body).send().await.unwrap();
    let first = expect(asked, 201).await;
    let id = first["id"].as_i64().unwrap();
    submit(&lab, &format!("/jobs/{id}/cancel"), &alice, &[]).await;
    let hers = page(&lab, "/jobs", &alice).await;
    let values = hers.split_once("name=\"parameters\" value=\"").unwrap().1;
    let values = values.split_once("\">").unwrap().0;
    let values = values.replace("&quot;", "\"").replace("&amp;", "&");
    let values = values.replace("&#x5c;", "\\");
    let form = [("task", "greet"), ("parameters", values.as_str())];
    let again = submit(&lab, "/jobs", &alice, &form).await;
    let next = format!("/status/{}", id + 1);
    assert_eq!(location(&again), (303, next.as_str()));
    let second = lab.get(&format!("/jobs/{}", id + 1), &alice).send().await;
    let second = expect(second.unwrap(), 200).await;
    assert_eq!(second["command"], first["command"]);

    has(&hers, &["name=\"parameters.who\"", "Start greet</button>"]);
    let refused = submit(
        &lab,
        "/jobs",
        &alice,
        &[("task", "greet"), ("parameters.who", "")],
    )
    .await;
    assert_eq!(refused.status(), 400);
    has(
        &refused.text().await.unwrap(),
        &["<details open>", "<code>who</code> is required."],
    );
    let long = "<x>".repeat(1000);
    let form = [("task", "greet"), ("parameters.who", long.as_str())];
    let refused = submit(&lab, "/jobs", &alice, &form)
        .await
        .text()
        .await
        .unwrap();
    has(&refused, &["value=\"&lt;x&gt;", "1000 characters at most"]);
    let started = submit(
        &lab,
        "/jobs",
        &alice,
        &[("task", "greet"), ("parameters.who", "us")],
    )
    .await;
    let next = format!("/status/{}", id + 2);
    assert_eq!(location(&started), (303, next.as_str()));
    let bob = lab.login("bob").await;
    assert!(!page(&lab, "/jobs", &bob).await.contains("greet"));
}

#[tokio::test]
async fn a_token_is_made_shown_once_and_revoked() {
    let lab = Lab::idle(&[]).await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let admin = lab.login("admin").await;
    let empty = page(&lab, "/tokens", &alice).await;
    has(
        &empty,
        &["There is no token yet.", "value=\"containers:read\""],
    );
    assert!(!empty.contains("nginx:read"), "{empty}");
    has(
        &page(&lab, "/tokens", &admin).await,
        &["value=\"nginx:read\""],
    );

    let form = [
        ("name", "<ci>"),
        ("scopes", "jobs"),
        ("scopes", "nginx:read"),
        ("expires", ""),
    ];
    let refused = submit(&lab, "/tokens", &alice, &form).await;
    assert_eq!(refused.status(), 400);
    let refused = refused.text().await.unwrap();
    has(
        &refused,
        &[
            "value=\"&lt;ci&gt;\"",
            "value=\"jobs\" checked",
            "id=\"scopes-problem\"",
        ],
    );
    let form = [
        ("name", "ci"),
        ("scopes", "jobs"),
        ("expires", "2001-01-01T00:00"),
    ];
    let refused = submit(&lab, "/tokens", &alice, &form)
        .await
        .text()
        .await
        .unwrap();
    has(
        &refused,
        &["value=\"2001-01-01T00:00\"", "id=\"expires-problem\""],
    );

    let end = chrono::Utc::now() + chrono::Duration::days(60);
    let (sent, shown) = ("%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M");
    let (sent, shown) = (end.format(sent).to_string(), end.format(shown).to_string());
    let form = [
        ("name", "<ci>"),
        ("scopes", "jobs"),
        ("scopes", "containers:read"),
        ("expires", sent.as_str()),
    ];
    let made = submit(&lab, "/tokens", &alice, &form).await;
    assert_eq!(made.status(), 201);
    let made = made.text().await.unwrap();
    let text = &made[made.find("<code>cac_").unwrap() + 6..][..68];
    has(&made, &["shown only once", "&lt;ci&gt;", &shown]);
    expect(lab.get("/containers", text).send().await.unwrap(), 200).await;
    let hers = page(&lab, "/tokens", &alice).await;
    assert!(!hers.contains(text), "{hers}");
    let action = hers
        .split_once("method=\"post\" action=\"/tokens/")
        .unwrap()
        .1;
    let path = format!("/tokens/{}", action.split_once('"').unwrap().0);
    has(
        &page(&lab, "/tokens?all=true", &admin).await,
        &[&path, ">alice</td>"],
    );
    has(
        &page(&lab, "/tokens", &bob).await,
        &["There is no token yet."],
    );

    let revoke = [("_method", "DELETE")];
    assert_eq!(submit(&lab, &path, &bob, &revoke).await.status(), 404);
    let revoked = submit(&lab, &path, &alice, &revoke).await;
    assert_eq!(location(&revoked), (303, "/tokens"));
    expect(lab.get("/containers", text).send().await.unwrap(), 401).await;
    submit(&lab, "/tokens", &alice, &form).await;
    let hers = page(&lab, "/tokens", &alice).await;
    let action = hers
        .split_once("method=\"post\" action=\"/tokens/")
        .unwrap()
        .1;
    let path = format!("/tokens/{}", action.split_once('"').unwrap().0);
    let revoked = submit(&lab, &path, &admin, &revoke).await;
    assert_eq!(location(&revoked), (303, "/tokens?all=true"));
}

#[tokio::test]
async fn sessions_are_ended_one_by_one_and_all() {
    let lab = Lab::idle(&[]).await;
    let (one, two) = (lab.login("alice").await, lab.login("alice").await);
    let bob = lab.login("bob").await;
    let id = async |session: &str, own: bool| {
        let list = lab.get("/sessions", session).send().await.unwrap();
        let list = expect(list, 200).await;
        let mut rows = list.as_array().unwrap().iter();
        let row = rows.find(|row| row["current"] == own).unwrap();
        format!("/sessions/{}", row["id"].as_str().unwrap())
    };
    let hers = page(&lab, "/sessions", &one).await;
    assert_eq!(hers.matches(ONE).count(), 2, "{hers}");
    assert_eq!(hers.matches(">this one</span>").count(), 1, "{hers}");
    has(&hers, &[">127."]);
    let his = page(&lab, "/sessions", &bob).await;
    assert_eq!(his.matches(ONE).count(), 1, "{his}");

    let end = [("_method", "DELETE")];
    let other = id(&one, false).await;
    has(&hers, &[&format!("action=\"{other}\"")]);
    assert_eq!(submit(&lab, &other, &bob, &end).await.status(), 404);
    assert_eq!(
        location(&submit(&lab, &other, &one, &end).await),
        (303, "/sessions")
    );
    expect(lab.get("/sessions", &two).send().await.unwrap(), 401).await;
    let own = id(&one, true).await;
    assert_eq!(
        location(&submit(&lab, &own, &one, &end).await),
        (303, "/login")
    );
    expect(lab.get("/sessions", &one).send().await.unwrap(), 401).await;
    let all = submit(&lab, "/sessions", &bob, &end).await;
    assert_eq!(location(&all), (303, "/login"));
    assert!(all.headers().contains_key("set-cookie"));
    expect(lab.get("/sessions", &bob).send().await.unwrap(), 401).await;
}

#[tokio::test]
async fn the_audit_log_is_for_admins_and_is_narrowed_by_a_form() {
    let lab = Lab::idle(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    lab.token(&alice, &["jobs"]).await;
    let strange = json!({"name": "<script>", "apiUrl": "<script>"});
    let refused = lab.post("/nodes", &admin).json(&strange).send().await;
    expect(refused.unwrap(), 400).await;
    let answer = lab
        .get("/audit", &alice)
        .header("accept", HTML)
        .send()
        .await;
    assert_eq!(answer.unwrap().status(), 403);

    let all = page(&lab, "/audit", &admin).await;
    has(
        &all,
        &[
            "token_create",
            "node_create",
            "badge bad\">400<",
            "badge good\">201<",
        ],
    );
    has(&all, &["href=\"/audit.csv\""]);
    assert!(!all.contains("<script>"), "{all}");
    assert!(
        all.find("node_create") < all.find("token_create"),
        "newest first"
    );
    let old = page(&lab, "/audit?newest=false", &admin).await;
    assert!(old.find("node_create") > old.find("token_create"), "{old}");

    let query = "username=alice&action=token_create&target=&since=2001-01-01T00:00&until=&newest=";
    let found = page(&lab, &format!("/audit?{query}"), &admin).await;
    assert_eq!(found.matches(ONE).count(), 1, "{found}");
    has(
        &found,
        &["value=\"token_create\"", "value=\"2001-01-01T00:00:00\""],
    );
    let export =
        "/audit.csv?username=alice&amp;action=token_create&amp;since=2001-01-01T00%3A00%3A00Z";
    has(&found, &[export]);
    let found = page(&lab, "/audit?until=2001-01-01T00:00", &admin).await;
    has(&found, &["There is no such entry."]);
    let first = page(&lab, "/audit?username=alice&limit=1", &admin).await;
    has(
        &first,
        &["/audit?username=alice&amp;limit=1&amp;offset=1\">After</a>"],
    );
    let odd = lab.get("/audit?since=soon", &admin).send().await.unwrap();
    expect(odd, 400).await;
}
