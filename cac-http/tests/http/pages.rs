//! The main job by plain forms, as a browser without script does it.

use crate::lab::{HTML, Lab, cookie};

/// The value of a hidden field or a link that follows `before`.
fn after<'a>(page: &'a str, before: &str) -> &'a str {
    let (_, rest) = page
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before} in {page}"));
    rest.split_once('"').unwrap().0
}

#[tokio::test]
async fn sign_in_ask_watch_list_delete() {
    let lab = Lab::new().await;
    let page = async |path: &str, session: &str| {
        let answer = lab
            .get(path, session)
            .header("accept", HTML)
            .send()
            .await
            .unwrap();
        assert!(
            answer.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/html")
        );
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    };
    let submit = async |path: &str, session: &str, form: &[(&str, &str)]| {
        let request = lab
            .post(path, session)
            .header("accept", HTML)
            .header("origin", &lab.url);
        request.form(form).send().await.unwrap()
    };
    let location =
        |answer: &reqwest::Response| answer.headers()["location"].to_str().unwrap().to_owned();

    let home = lab
        .get("/", "")
        .header("accept", HTML)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (home.status().as_u16(), location(&home).as_str()),
        (303, "/containers")
    );
    let login = lab
        .get("/containers", "")
        .header("accept", HTML)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (login.status().as_u16(), location(&login).as_str()),
        (303, "/login?redirect=%2Fcontainers")
    );
    let form = page(&location(&login), "").await;
    assert_eq!(
        after(&form, "name=\"redirect\" value=\"").replace("&#x2f;", "/"),
        "/containers"
    );
    let wrong = submit("/login", "", &[("username", "al<i>ce"), ("password", "x")]).await;
    assert_eq!(wrong.status(), 401);
    let wrong = wrong.text().await.unwrap();
    assert!(
        wrong.contains("User name or password is wrong.") && wrong.contains("al&lt;i&gt;ce"),
        "{wrong}"
    );
    let signed = submit(
        "/login",
        "",
        &[
            ("username", "alice"),
            ("password", "alice-demo"),
            ("redirect", "/containers"),
        ],
    )
    .await;
    assert_eq!(
        (signed.status().as_u16(), location(&signed).as_str()),
        (303, "/containers")
    );
    let alice = cookie(&signed);

    assert!(
        page("/containers", &alice)
            .await
            .contains("There is no container yet.")
    );
    assert!(
        page("/containers/new", &alice)
            .await
            .contains("name=\"httpPort\"")
    );
    let fields = |name: &'static str, port: &'static str| {
        [
            ("init", "true"),
            ("hostname", name),
            ("osRelease", "debian"),
            ("httpPort", port),
        ]
    };
    let refused = submit("/containers", &alice, &fields("-bad-", "many")).await;
    assert_eq!(refused.status(), 400);
    let refused = refused.text().await.unwrap();
    assert!(
        refused.contains("value=\"-bad-\"") && refused.contains("id=\"httpPort-problem\""),
        "{refused}"
    );
    let asked = submit("/containers", &alice, &fields("web", "8080")).await;
    let taken = submit("/containers", &alice, &fields("web", "8080")).await;
    assert_eq!(taken.status(), 409);
    assert!(
        taken
            .text()
            .await
            .unwrap()
            .contains("id=\"hostname-problem\"")
    );
    assert_eq!(asked.status(), 303);
    let status = location(&asked);
    let job: i64 = status.strip_prefix("/status/").unwrap().parse().unwrap();
    assert!(page(&status, &alice).await.contains("class=\"log\""));
    assert_eq!(lab.ended(job).await, "success");
    let done = page(&status, &alice).await;
    assert!(
        done.contains(">success<") && !done.contains("http-equiv=\"refresh\""),
        "{done}"
    );

    let list = page("/containers", &alice).await.replace("&#x2f;", "/");
    assert!(
        list.contains("https://web.cac.localhost/") && list.contains("ssh -p 2222"),
        "{list}"
    );
    let link = after(&list, "<th scope=\"row\"><a href=\"");
    let one = page(link, &alice).await;
    assert!(one.contains("name=\"_method\" value=\"DELETE\""), "{one}");
    let gone = submit(link, &alice, &[("_method", "DELETE")]).await;
    assert_eq!(
        (gone.status().as_u16(), location(&gone).as_str()),
        (303, "/containers")
    );
    assert!(
        page("/containers", &alice)
            .await
            .contains("There is no container yet.")
    );
    let missing = lab
        .get(link, &alice)
        .header("accept", HTML)
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 404);
    assert!(
        missing
            .text()
            .await
            .unwrap()
            .contains("There is no container")
    );
    let out = submit("/logout", &alice, &[]).await;
    assert_eq!(
        (out.status().as_u16(), location(&out).as_str()),
        (303, "/login")
    );
}

#[tokio::test]
async fn nodes_are_for_admins_and_keep_their_secrets() {
    let lab = Lab::idle(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    assert_eq!(
        lab.get("/nodes", &alice).send().await.unwrap().status(),
        403
    );
    let nodes = cac_core::node::all(&lab.core).await.unwrap();
    let secret = nodes[0].secret.as_ref().unwrap().expose();
    for accept in [HTML, "application/json"] {
        let answer = lab
            .get("/nodes", &admin)
            .header("accept", accept)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        assert!(text.contains("pve3") && !text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn style_and_script_are_kept_for_good_and_nothing_is_foreign() {
    let lab = Lab::idle(&[]).await;
    let login = lab
        .get("/login", "")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
        .replace("&#x2f;", "/");
    let style = after(&login, "rel=\"stylesheet\" href=\"");
    let answer = lab.get(style, "").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        answer.headers()["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    assert_eq!(answer.headers()["content-type"], "text/css; charset=utf-8");
    assert_eq!(
        lab.get("/assets/style.css", "")
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    let docs = lab
        .get("/docs", "")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(docs.contains("container_create"));
    for foreign in ["src=\"http", "href=\"http", "src=\"//"] {
        assert!(
            !docs[..2000].contains(foreign) && !login.contains(foreign),
            "{foreign}"
        );
    }
}
