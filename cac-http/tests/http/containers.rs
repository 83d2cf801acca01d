//! `/containers` and `/containers/{id}`.

use cac_simulator::Action;
use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, expect, wanted};

#[tokio::test]
async fn the_whole_life_of_a_container() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let answer = lab
        .post("/containers?init=true", &alice)
        .json(&wanted("web"))
        .send()
        .await
        .unwrap();
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let asked = expect(answer, 202).await;
    assert_eq!(asked["success"], true);
    assert_eq!(location, format!("{}/status/{}", lab.url, asked["jobId"]));
    assert_eq!(lab.ended(asked["jobId"].as_i64().unwrap()).await, "success");
    let list = lab.get("/containers", &alice).send().await.unwrap();
    assert_eq!(list.headers()["x-total-count"], "1");
    let list = expect(list, 200).await;
    let row = &list[0];
    assert_eq!(row["hostname"], "web");
    assert!(
        row["ipv4Address"].as_str().unwrap().starts_with("127."),
        "{row}"
    );
    assert_eq!(row["services"].as_array().unwrap().len(), 2);
    let path = format!("/containers/{}", row["id"]);
    let one = expect(lab.get(&path, &alice).send().await.unwrap(), 200).await;
    assert_eq!(one["status"], "running");
    assert_eq!(one, *row);
    let gone = expect(lab.delete(&path, &alice).send().await.unwrap(), 200).await;
    assert_eq!(
        gone,
        json!({"success": true, "message": "Container deleted successfully"})
    );
    assert!(lab.simulator.containers().is_empty());
    expect(lab.get(&path, &alice).send().await.unwrap(), 404).await;
    expect(lab.delete(&path, &alice).send().await.unwrap(), 404).await;
}

#[tokio::test]
async fn lists_show_ones_own_and_admins_everyones() {
    let lab = Lab::idle(&[]).await;
    let (alice, bob, admin) = (
        lab.login("alice").await,
        lab.login("bob").await,
        lab.login("admin").await,
    );
    for (who, name) in [(&alice, "a1"), (&bob, "b1"), (&alice, "a2")] {
        lab.create(who, name).await;
    }
    let names = async |path: &str, who: &str| {
        let answer = lab.get(path, who).send().await.unwrap();
        let total = answer.headers()["x-total-count"]
            .to_str()
            .unwrap()
            .to_owned();
        let list = expect(answer, 200).await;
        let names: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["hostname"].as_str().unwrap())
            .collect();
        format!("{} of {total}", names.join(" "))
    };
    assert_eq!(names("/containers", &alice).await, "a1 a2 of 2");
    assert_eq!(names("/containers", &admin).await, " of 0");
    assert_eq!(names("/containers?all=true", &admin).await, "a1 b1 a2 of 3");
    assert_eq!(names("/containers?user=bob", &admin).await, "b1 of 1");
    assert_eq!(
        names("/containers?all=true&limit=1&offset=1", &admin).await,
        "b1 of 3"
    );
    expect(
        lab.get("/containers?all=true", &alice)
            .send()
            .await
            .unwrap(),
        403,
    )
    .await;
    for bad in ["limit=x", "limit=-1", "offset=1.5", "all=maybe"] {
        let refused = expect(
            lab.get(&format!("/containers?{bad}"), &alice)
                .send()
                .await
                .unwrap(),
            400,
        )
        .await;
        let field = bad.split('=').next().unwrap();
        assert!(refused["errors"][field].is_string(), "{refused}");
    }
}

#[tokio::test]
async fn bad_input_is_told_by_field() {
    let lab = Lab::idle(&[("CONTAINER_LOWEST_WEB_PORT", "1024")]).await;
    let alice = lab.login("alice").await;
    lab.create(&alice, "taken").await;
    let long = "x".repeat(64);
    for (field, value, status) in [
        ("hostname", json!("taken"), 409),
        ("hostname", json!("-web"), 400),
        ("hostname", json!(long), 400),
        ("hostname", json!("a.b"), 400),
        ("hostname", json!("admin"), 400),
        ("hostname", json!(5), 400),
        ("hostname", Value::Null, 400),
        ("osRelease", json!("plan9"), 400),
        ("osRelease", Value::Null, 400),
        ("httpPort", json!(79), 400),
        ("httpPort", json!(60001), 400),
        ("httpPort", json!(80), 400),
        ("httpPort", json!("many"), 400),
        ("httpPort", json!(80.5), 400),
        ("httpPort", Value::Null, 400),
        ("aiContainer", json!("NOWHERE"), 400),
        ("additionalProtocols", json!(["gopher"]), 400),
        ("additionalProtocols", json!("rdp, gopher"), 400),
        ("sshPublicKey", json!("rm -rf /"), 400),
        ("cores", json!(0), 400),
        ("memory", json!(1), 400),
        ("disk", json!(-5), 400),
        ("node", json!("pve9"), 400),
        ("template", json!("a b"), 400),
        ("init", json!("maybe"), 400),
    ] {
        let mut body = wanted("web");
        body[field] = value.clone();
        let path = if field == "init" {
            "/containers"
        } else {
            "/containers?init=true"
        };
        let refused = expect(
            lab.post(path, &alice).json(&body).send().await.unwrap(),
            status,
        )
        .await;
        assert!(
            refused["errors"][field].is_string(),
            "{field} {value}: {refused}"
        );
    }
    // Several at once come at once.
    let body = json!({"hostname": "-", "osRelease": "?", "httpPort": 1});
    let refused = expect(
        lab.post("/containers?init=true", &alice)
            .json(&body)
            .send()
            .await
            .unwrap(),
        400,
    )
    .await;
    assert_eq!(refused["errors"].as_object().unwrap().len(), 3, "{refused}");
}

#[tokio::test]
async fn bodies_of_every_wrong_kind_are_refused() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let send = async |kind: &str, body: String| {
        let request = lab
            .post("/containers?init=true", &alice)
            .header("content-type", kind)
            .body(body);
        request.send().await.unwrap()
    };
    expect(send("application/json", "{".to_owned()).await, 400).await;
    expect(send("application/json", "[]".to_owned()).await, 400).await;
    expect(send("text/plain", "hostname=web".to_owned()).await, 415).await;
    expect(send("application/json", " ".repeat(70_000)).await, 413).await;
    expect(
        send(
            "application/x-www-form-urlencoded",
            "x=".to_owned() + &"y".repeat(70_000),
        )
        .await,
        413,
    )
    .await;
    expect(
        lab.post("/containers?init=true", &alice)
            .send()
            .await
            .unwrap(),
        415,
    )
    .await;
    expect(
        lab.get("/containers/abc", &alice).send().await.unwrap(),
        400,
    )
    .await;
    expect(lab.get("/nowhere", &alice).send().await.unwrap(), 404).await;
    expect(
        lab.ask(Method::PATCH, "/containers", &alice)
            .send()
            .await
            .unwrap(),
        405,
    )
    .await;
}

#[tokio::test]
async fn a_405_says_what_is_allowed() {
    let lab = Lab::idle(&[]).await;
    for (path, allowed) in [
        ("/containers", "GET, POST, HEAD"),
        ("/containers/5?x=1", "DELETE, GET, HEAD, PUT"),
        ("/docs", "GET, HEAD"),
    ] {
        let refused = lab.ask(Method::PATCH, path, "").send().await.unwrap();
        let mut names: Vec<_> = refused.headers()["allow"]
            .to_str()
            .unwrap()
            .split(", ")
            .collect();
        let mut wanted: Vec<_> = allowed.split(", ").collect();
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted, "{path}");
        expect(refused, 405).await;
    }
    let head = lab.ask(Method::HEAD, "/healthz", "").send().await.unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn init_may_stand_in_the_body_and_forms_are_taken() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let mut body = wanted("one");
    body["init"] = json!(true);
    expect(
        lab.post("/containers", &alice)
            .json(&body)
            .send()
            .await
            .unwrap(),
        202,
    )
    .await;
    let form = [
        ("init", "true"),
        ("hostname", "two"),
        ("osRelease", "debian"),
        ("httpPort", "8080"),
        ("cores", ""),
        ("additionalProtocols", "rdp, 9000/udp"),
    ];
    let made = expect(
        lab.post("/containers", &alice)
            .form(&form)
            .send()
            .await
            .unwrap(),
        202,
    )
    .await;
    let row = expect(
        lab.get(&format!("/containers/{}", made["id"]), &alice)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert_eq!(row["services"].as_array().unwrap().len(), 4, "{row}");
    assert_eq!(row["cores"], 2);
    expect(
        lab.post("/containers?init=true", "")
            .json(&wanted("x"))
            .send()
            .await
            .unwrap(),
        401,
    )
    .await;
}

#[tokio::test]
async fn the_same_name_at_the_same_instant_is_given_once() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let ask = || {
        lab.post("/containers?init=true", &alice)
            .json(&wanted("race"))
            .send()
    };
    let (one, two) = tokio::join!(ask(), ask());
    let (one, two) = (one.unwrap(), two.unwrap());
    let (won, lost) = if one.status() == 202 {
        (one, two)
    } else {
        (two, one)
    };
    expect(won, 202).await;
    let lost = expect(lost, 409).await;
    assert!(lost["errors"]["hostname"].is_string(), "{lost}");
}

#[tokio::test]
async fn an_idempotency_key_makes_one_container() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let ask = async |name: &str, key: &str| {
        let request = lab
            .post("/containers?init=true", &alice)
            .header("idempotency-key", key)
            .json(&wanted(name));
        request.send().await.unwrap()
    };
    let first = expect(ask("web", "k1").await, 202).await;
    assert_eq!(expect(ask("web", "k1").await, 202).await, first);
    let other = expect(ask("web2", "k1").await, 409).await;
    assert!(other["errors"]["Idempotency-Key"].is_string(), "{other}");
    expect(ask("web3", &"k".repeat(300)).await, 400).await;
}

#[tokio::test]
async fn other_peoples_containers_are_not_ones_own() {
    let lab = Lab::new().await;
    let (alice, bob, admin) = (
        lab.login("alice").await,
        lab.login("bob").await,
        lab.login("admin").await,
    );
    let (id, job) = lab.create(&alice, "hers").await;
    lab.ended(job).await;
    let path = format!("/containers/{id}");
    expect(lab.get(&path, &bob).send().await.unwrap(), 404).await;
    // The one call that says so, as the seed's scripts expect.
    expect(lab.delete(&path, &bob).send().await.unwrap(), 403).await;
    expect(lab.get(&path, &admin).send().await.unwrap(), 200).await;
    expect(lab.delete(&path, &admin).send().await.unwrap(), 200).await;
}

#[tokio::test]
async fn what_proxmox_refuses_is_told_in_its_words() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let (id, job) = lab.create(&alice, "stuck").await;
    assert_eq!(lab.ended(job).await, "success");
    lab.simulator.faults().once(
        "DELETE",
        "/lxc/",
        Action::FailTask {
            text: "the storage is on fire".to_owned(),
        },
    );
    let refused = expect(
        lab.delete(&format!("/containers/{id}"), &alice)
            .send()
            .await
            .unwrap(),
        500,
    )
    .await;
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("the storage is on fire"),
        "{refused}"
    );
    expect(
        lab.delete(&format!("/containers/{id}"), &alice)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
}

/// A misspelt field was no mistake, and nothing was changed.
#[tokio::test]
async fn a_field_that_there_is_not_is_named() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let (id, _) = lab.create(&alice, "typo").await;
    let request = lab.ask(Method::PUT, &format!("/containers/{id}"), &alice);
    let answer = request.json(&json!({"memroy": 4096})).send().await.unwrap();
    let refused = expect(answer, 400).await;
    let told = refused["errors"]["memroy"].as_str().unwrap();
    assert!(told.contains("cores, memory, disk"), "{refused}");
    // Scripts of the original's own routes send what they like.
    let body = json!({"init": true, "hostname": "more", "osRelease": "debian", "httpPort": 8080, "colour": "red"});
    let answer = lab.post("/containers", &alice).json(&body).send().await;
    expect(answer.unwrap(), 202).await;
}
