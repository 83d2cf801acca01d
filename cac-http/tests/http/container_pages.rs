//! The pages of containers: the list with its search, the form, the progress, and everything that is done on a container's page.

use serde_json::json;

use crate::browse::{has, location, page, submit};
use crate::lab::{HTML, Lab, expect, wanted};

#[tokio::test]
async fn a_list_is_searched_and_shows_what_runs() {
    let lab = Lab::new().await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    has(
        &page(&lab, "/containers", &alice).await,
        &["There is no container yet.", "Make the first one"],
    );
    let (_, first) = lab.create(&alice, "blog").await;
    let (_, second) = lab.create(&alice, "wiki").await;
    for job in [first, second] {
        assert_eq!(lab.ended(job).await, "success");
    }
    let all = page(&lab, "/containers", &alice).await;
    has(
        &all,
        &[
            "blog",
            "wiki",
            ">running<",
            "vscode://vscode-remote/ssh-remote+root@",
            "data-copy=\"ssh -p",
        ],
    );
    let found = page(&lab, "/containers?search=WI", &alice).await;
    has(&found, &["wiki", "value=\"WI\"", "1 in all"]);
    assert!(!found.contains("blog"), "{found}");
    for (search, total) in [
        ("debian", "2"),
        ("%", "0"),
        ("_", "0"),
        ("!", "0"),
        ("blog", "1"),
        ("127.", "2"),
        ("", "2"),
    ] {
        let answer = lab
            .get("/containers", &alice)
            .query(&[("search", search)])
            .send()
            .await
            .unwrap();
        assert_eq!(answer.headers()["x-total-count"], total, "{search}");
    }
    has(
        &page(&lab, "/containers?search=%3Cb%3E", &alice).await,
        &["No container fits “&lt;b&gt;”."],
    );
    has(
        &page(&lab, "/containers?all=true&search=alice", &admin).await,
        &["2 in all", "/containers?user=alice"],
    );
    assert_eq!(
        lab.get("/containers?all=true", &alice)
            .header("accept", HTML)
            .send()
            .await
            .unwrap()
            .status(),
        403
    );
}

#[tokio::test]
async fn a_size_is_chosen_by_name_and_numbers_win() {
    let lab = Lab::idle(&[("CONTAINER_SIZES", "tiny:1/256/2,big:8/16384/64")]).await;
    let alice = lab.login("alice").await;
    let form = page(&lab, "/containers/new", &alice).await;
    has(
        &form,
        &[
            "value=\"tiny\"",
            "8 cores, 16 GiB, 64 GiB disk",
            "id=\"suggestion\"",
            "<option>debian-12</option>",
        ],
    );
    let ask = async |name: &str, more: serde_json::Value| {
        let mut body = wanted(name);
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        lab.post("/containers?init=true", &alice)
            .json(&body)
            .send()
            .await
            .unwrap()
    };
    let made = expect(ask("one", json!({"size": "tiny", "disk": 3})).await, 202).await;
    let row = expect(
        lab.get(&format!("/containers/{}", made["id"]), &alice)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert_eq!(
        (&row["cores"], &row["memory"], &row["disk"]),
        (&json!(1), &json!(256), &json!(3)),
        "{row}"
    );
    let refused = expect(ask("two", json!({"size": "huge"})).await, 400).await;
    assert_eq!(
        refused["errors"]["size"],
        "Use one of tiny, big, or give cores, memory and disk."
    );
}

#[tokio::test]
async fn asking_while_typing_is_no_change_and_leaves_nothing_in_the_audit_log() {
    let lab = Lab::idle(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let count = async || {
        let answer = lab
            .get("/audit?action=container_create", &admin)
            .send()
            .await
            .unwrap();
        answer.headers()["x-total-count"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    let path = "/containers?init=true&dryRun=true";
    let answer = lab
        .post(path, &alice)
        .json(&json!({"hostname": "www"}))
        .send()
        .await
        .unwrap();
    let told = expect(answer, 400).await;
    assert!(
        told["errors"]["hostname"].is_string() && told["errors"]["httpPort"].is_string(),
        "{told}"
    );
    assert_eq!(count().await, "0");
    // Without `init` it is a registration, whatever else is said.
    let answer = lab
        .post("/containers?dryRun=true", &alice)
        .json(&wanted("x"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(count().await, "1");
}

#[tokio::test]
async fn everything_is_done_on_the_page_of_a_container() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let (id, job) = lab.create(&alice, "shop").await;
    assert_eq!(lab.ended(job).await, "success");
    let progress = page(&lab, &format!("/status/{job}"), &alice).await;
    has(
        &progress,
        &[
            "shop is ready.",
            "<li class=\"done\"><span>choose a node</span><span class=\"took\">",
            "https://shop.cac.localhost/",
            "data-typed=\"true\"",
        ],
    );
    let at = format!("/containers/{id}");
    let one = page(&lab, &at, &alice).await;
    has(
        &one,
        &[
            "Use over time",
            ">running<",
            "pattern=\"shop\"",
            "<span>container create</span>",
            ">Stop<",
        ],
    );

    let services = format!("{at}/services");
    let there = |answer: &reqwest::Response| assert_eq!(location(answer), (303, at.as_str()));
    there(
        &submit(
            &lab,
            &services,
            &alice,
            &[
                ("type", "tcp"),
                ("internalPort", "9000"),
                ("externalHostname", ""),
            ],
        )
        .await,
    );
    let refused = submit(
        &lab,
        &services,
        &alice,
        &[
            ("type", "http"),
            ("internalPort", "9001"),
            ("externalHostname", "-no-"),
        ],
    )
    .await;
    assert_eq!(refused.status(), 400);
    let id = refused.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    has(
        &refused.text().await.unwrap(),
        &["<h1>shop</h1>", "role=\"alert\"", &format!("Request {id}")],
    );
    let size = submit(
        &lab,
        &at,
        &alice,
        &[
            ("_method", "PUT"),
            ("cores", "4"),
            ("memory", "2048"),
            ("disk", "8"),
        ],
    )
    .await;
    there(&size);
    let shrink = submit(&lab, &at, &alice, &[("_method", "PUT"), ("disk", "1")]).await;
    assert_eq!(shrink.status(), 400);
    has(
        &shrink.text().await.unwrap(),
        &["role=\"alert\"", "value=\"4\""],
    );
    there(&submit(&lab, &format!("{at}/stop"), &alice, &[]).await);
    let one = page(&lab, &at, &alice).await;
    has(
        &one,
        &[
            "9000",
            ">stopped<",
            ">Start<",
            "container update",
            "container stop",
            "service create",
        ],
    );
    there(
        &submit(
            &lab,
            &at,
            &alice,
            &[("_method", "PUT"), ("protected", "true")],
        )
        .await,
    );
    let kept = submit(
        &lab,
        &at,
        &alice,
        &[("_method", "DELETE"), ("_confirm", "shop")],
    )
    .await;
    assert_eq!(kept.status(), 409);
    has(
        &kept.text().await.unwrap(),
        &[
            "It is protected and cannot be deleted.",
            "End the protection",
        ],
    );
    // Somebody else's does not exist.
    let bob = lab.login("bob").await;
    assert_eq!(
        lab.get(&at, &bob)
            .header("accept", HTML)
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
}

#[tokio::test]
async fn pages_styles_and_scripts_go_compressed_and_streams_do_not() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let (_, job) = lab.create(&alice, "small").await;
    assert_eq!(lab.ended(job).await, "success");
    let ask = |path: &str, encoding: &str| {
        let request = lab
            .get(path, &alice)
            .header("accept-encoding", encoding.to_owned());
        request.header("accept", HTML).send()
    };
    let plain = ask("/containers/new", "identity").await.unwrap();
    assert!(plain.headers().get("content-encoding").is_none());
    let plain = plain.bytes().await.unwrap();
    let small = ask("/containers/new", "br, gzip;q=0.5").await.unwrap();
    assert_eq!(small.headers()["content-encoding"], "gzip");
    let vary: Vec<_> = small
        .headers()
        .get_all("vary")
        .iter()
        .map(|v| v.to_str().unwrap())
        .collect();
    assert!(vary.join(",").contains("Accept-Encoding"), "{vary:?}");
    let small = small.bytes().await.unwrap();
    assert!(
        small.len() * 2 < plain.len() && small.starts_with(&[0x1f, 0x8b]),
        "{} of {}",
        small.len(),
        plain.len()
    );
    for (path, encoding) in [
        ("/containers/new", "gzip;q=0"),
        ("/containers/new", ""),
        ("/openapi.json", "gzip"),
    ] {
        let answer = ask(path, encoding).await.unwrap();
        assert!(
            answer.headers().get("content-encoding").is_none(),
            "{path} {encoding}"
        );
    }
    let stream = lab
        .get(&format!("/jobs/{job}/stream"), &alice)
        .header("accept-encoding", "gzip");
    let stream = stream.send().await.unwrap();
    assert!(stream.headers().get("content-encoding").is_none());
    assert!(stream.text().await.unwrap().contains("event: end"));
}
