//! Known devices at the login, and the users page: whose a name is after an account was missing.

use cac_core::{args, user};
use reqwest::Response;
use serde_json::{Value, json};

use crate::browse::{has, location, page, submit};
use crate::lab::{HTML, Lab, expect};

/// The cookie of that name in an answer, as `name=value`, and the whole header.
fn set_cookie(answer: &Response, name: &str) -> (String, String) {
    let all = answer.headers().get_all("set-cookie").iter();
    let mut all = all.map(|set| set.to_str().unwrap().to_owned());
    let whole = all
        .find(|set| set.starts_with(&format!("{name}=")))
        .unwrap();
    (whole.split(';').next().unwrap().to_owned(), whole)
}

async fn login(lab: &Lab, cookies: &str, password: &str) -> Response {
    let body = json!({"username": "alice", "password": password});
    lab.post("/login", cookies)
        .json(&body)
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_sign_in_makes_the_device_known_by_a_cookie_of_its_own() {
    for (public, name, secure) in [
        ("http://portal.example.org", "cac-device", false),
        ("https://portal.example.org", "__Host-cac-device", true),
    ] {
        let lab = Lab::idle(&[("CAC_PUBLIC_URL", public)]).await;
        let first = login(&lab, "", "alice-demo").await;
        let (device, whole) = set_cookie(&first, name);
        for part in ["Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=34560000"] {
            assert!(whole.contains(part), "{whole}");
        }
        assert_eq!(whole.contains("; Secure"), secure, "{whole}");
        assert!(!whole.contains("Domain"), "{whole}");
        // It opens nothing, and stays the same at the next sign-in.
        expect(lab.get("/containers", &device).send().await.unwrap(), 401).await;
        let second = login(&lab, &device, "alice-demo").await;
        assert_eq!(set_cookie(&second, name).0, device);
        // "Sign out everywhere" forgets it.
        let session = crate::lab::cookie(&second);
        lab.delete("/sessions", &session).send().await.unwrap();
        let third = login(&lab, &device, "alice-demo").await;
        assert_ne!(set_cookie(&third, name).0, device);
    }
}

/// Whoever shares a network with a guesser has no request left there, but a known device has a budget of its own.
#[tokio::test]
async fn a_known_device_signs_in_though_its_networks_requests_are_used_up() {
    let lab = Lab::idle(&[("RATE_LIMIT", "8"), ("RATE_LIMIT_MINUTES", "60")]).await;
    let (device, _) = set_cookie(&login(&lab, "", "alice-demo").await, "cac-device");
    let mut last = None;
    for _ in 0..12 {
        last = Some(login(&lab, "", "guess").await);
    }
    let refused = last.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    expect(refused, 429).await;
    expect(login(&lab, &device, "alice-demo").await, 200).await;
    // A made-up device is none, nor is a known one good for anything but signing in.
    let made_up = format!("cac-device={}", "0".repeat(64));
    expect(login(&lab, &made_up, "alice-demo").await, 429).await;
    expect(lab.get("/containers", &device).send().await.unwrap(), 429).await;
    // Its own budget ends, too.
    for _ in 0..8 {
        login(&lab, &device, "guess").await;
    }
    expect(login(&lab, &device, "alice-demo").await, 429).await;
}

async fn look_up(lab: &Lab) {
    for sql in [
        r#"UPDATE "Tokens" SET "adminCheckedAt" = '2001-01-01T00:00:00.000Z'"#,
        r#"UPDATE "UserStates" SET "triedAt" = NULL"#,
    ] {
        lab.core.db.exec(sql, args![]).await.unwrap();
    }
    user::look_up(&lab.core).await.unwrap();
}

async fn users(lab: &Lab, admin: &str) -> Value {
    expect(lab.get("/users", admin).send().await.unwrap(), 200).await
}

#[tokio::test]
async fn an_admin_decides_whose_a_name_is() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    let bob = lab.login("bob").await;
    let (container, _) = lab.create(&bob, "bobs").await;
    let token = lab.token(&bob, &["containers:read"]).await;
    let list = users(&lab, &admin).await;
    assert_eq!(list[1]["username"], "bob");
    assert_eq!(
        (
            &list[1]["state"],
            &list[1]["containers"],
            &list[1]["tokens"]
        ),
        (&json!("active"), &json!(1), &json!(1))
    );
    lab.simulator.remove_user("bob@pve");
    look_up(&lab).await;
    expect(lab.get("/containers", &token).send().await.unwrap(), 401).await;
    lab.simulator.add_user("bob@pve", "bob-demo", &[]);
    look_up(&lab).await;
    let body = json!({"username": "bob", "password": "bob-demo"});
    let refused = lab.post("/login", "").json(&body).send().await.unwrap();
    let refused = expect(refused, 403).await;
    assert!(
        refused["detail"].as_str().unwrap().contains("Ask an admin"),
        "{refused}"
    );
    has(
        &page(&lab, "/users", &admin).await,
        &[
            "Missing in Proxmox VE",
            ">returned<",
            "action=\"/users/bob\"",
            "Same person",
        ],
    );
    let update = async |person: &str, status: u16| {
        let body = json!({"person": person});
        let request = lab
            .ask(reqwest::Method::PUT, "/users/bob", &admin)
            .json(&body);
        expect(request.send().await.unwrap(), status).await
    };
    let bad = update("nobody", 400).await;
    assert!(bad["errors"]["person"].is_string(), "{bad}");
    assert_eq!(update("same", 200).await["state"], "active");
    expect(lab.get("/containers", &token).send().await.unwrap(), 200).await;
    // The same by a form: a new person.
    let form = [("_method", "PUT"), ("person", "new")];
    let answer = submit(&lab, "/users/bob", &admin, &form).await;
    assert_eq!(location(&answer), (303, "/users"));
    has(
        &page(&lab, "/users", &admin).await,
        &["former owner bob", "Give back"],
    );
    expect(lab.get("/containers", &token).send().await.unwrap(), 401).await;
    let path = format!("/containers/{container}");
    expect(
        lab.get(&path, &lab.login("bob").await)
            .send()
            .await
            .unwrap(),
        404,
    )
    .await;
    let found = expect(lab.get(&path, &admin).send().await.unwrap(), 200).await;
    assert_eq!(found["username"], "former owner bob");
    // Given to somebody else, and given back as a whole.
    let request = lab.ask(reqwest::Method::PUT, "/users/former%20owner%20bob", &admin);
    let back = request
        .json(&json!({"person": "same"}))
        .send()
        .await
        .unwrap();
    assert_eq!(expect(back, 200).await["username"], "bob");
    let found = expect(lab.get(&path, &admin).send().await.unwrap(), 200).await;
    assert_eq!(found["username"], "bob");
}

#[tokio::test]
async fn an_account_request_shows_what_exists_under_its_name() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    let bob = lab.login("bob").await;
    lab.create(&bob, "bobs").await;
    for name in ["bob", "carol"] {
        let body = json!({"name": "Somebody", "email": "s@example.org", "username": name, "reason": "A seminar."});
        expect(
            lab.post("/register", "").json(&body).send().await.unwrap(),
            200,
        )
        .await;
    }
    let list = lab.get("/account-requests", &admin).send().await.unwrap();
    let list = expect(list, 200).await;
    assert_eq!(
        list[0]["existing"],
        json!({"containers": 1, "tokens": 0, "jobs": 1, "formerContainers": 0, "account": "active"})
    );
    assert!(list[1].get("existing").is_none(), "{list}");
    let approve = async |path: &str, status: u16| {
        expect(lab.post(path, &admin).send().await.unwrap(), status).await
    };
    let refused = approve("/account-requests/1/approve", 409).await;
    let message = refused["errors"]["acceptExisting"].as_str().unwrap();
    assert!(
        message.contains("1 container, 1 job and an account that may sign in"),
        "{message}"
    );
    has(
        &page(&lab, "/account-requests/1", &admin).await,
        &[
            "is in use here: 1 container",
            "approve?acceptExisting=true",
            "for a new person",
        ],
    );
    let without = page(&lab, "/account-requests/2", &admin).await;
    assert!(!without.contains("acceptExisting"), "{without}");
    approve("/account-requests/1/approve?acceptExisting=true", 200).await;
    let approved = approve("/account-requests/2/approve", 200).await;
    assert!(approved["link"].is_string(), "{approved}");
    // The page of a refusal has the request around it.
    let refused = lab
        .post("/account-requests/1/approve", &admin)
        .header("accept", HTML);
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), 409);
    has(&refused.text().await.unwrap(), &["is in use here"]);
}
