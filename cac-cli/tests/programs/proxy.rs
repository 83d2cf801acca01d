//! `cac proxy sync` and an nginx that runs as a system's does: what changes is live, what nginx refuses stays out, and whoever is away or
//! killed harms nobody.

use std::time::Duration;

use cac_core::nginx::find_nginx;
use cac_core::testing::nginx::check;
use rustix::process::Signal;

use crate::front::Front;
use crate::lab::{answers, run, text, until};

async fn front() -> Front {
    Front::new(&["one", "two", "three"].map(str::to_owned)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_live_and_says_where_and_since_when() {
    let mut front = front().await;
    let foreign = std::fs::read_to_string(front.file()).unwrap();
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    let service = front.stands(one, "live").await;
    front.browser.until("one.proxy.test", 200).await;
    assert_eq!(service["live"][0]["proxy"], "here");
    let kept = front.dir.path().join("nginx.conf.before-cac");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), foreign);

    // The portal goes: what is served goes on. It comes back: so does the puller.
    drop(front.http.take());
    tokio::time::sleep(Duration::from_millis(300)).await;
    front.browser.until("one.proxy.test", 200).await;
    let two = front.add("two").await;
    front.http().await;
    front.browser.until("two.proxy.test", 200).await;
    let first = front.stands(one, "live").await;
    assert_eq!(first["live"], service["live"], "since when it was");
    front.stands(two, "live").await;

    // Only one looks after a file.
    let second = front.once(&front.token);
    let said = text(&second.stderr);
    assert!(
        !second.status.success() && said.contains("Another process"),
        "{said}"
    );
    sync.stop();
    let once = front.once(&front.token);
    assert!(once.status.success(), "{}", text(&once.stderr));
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nginx_refuses_stays_out_and_is_told_in_its_words() {
    let front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    front.stands(one, "live").await;
    let good = std::fs::read_to_string(front.file()).unwrap();
    // A file that the operator includes.
    let more = front.dir.path().join("more.conf");
    std::fs::write(&more, "no_such_directive on;\n").unwrap();
    let two = front.add("two").await;
    let refused = front.stands(two, "refused").await;
    let reason = refused["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("here refused it: unknown directive \"no_such_directive\""),
        "{reason}"
    );
    assert_eq!(std::fs::read_to_string(front.file()).unwrap(), good);
    front.browser.until("one.proxy.test", 200).await;
    front.stands(one, "live").await;
    std::fs::remove_file(more).unwrap();
    let three = front.add("three").await;
    for id in [one, two, three] {
        front.stands(id, "live").await;
    }
    front.browser.until("two.proxy.test", 200).await;
    sync.stop();
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_together_are_one_reload_a_second() {
    let front = front().await;
    let sync = front.sync(&[]);
    let mut last = 0;
    let began = std::time::Instant::now();
    for n in 0..60 {
        last = front.add(&format!("c{n}")).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    front.stands(last, "live").await;
    let seconds = began.elapsed().as_secs();
    let told = sync.err() + &sync.out();
    let reloads = told.matches("nginx is up to date").count() as u64;
    assert!(
        (2..=seconds + 2).contains(&reloads),
        "{reloads} in {seconds} s: {told}"
    );
    sync.stop();
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puller_that_is_killed_leaves_a_file_that_nginx_takes() {
    let front = front().await;
    for n in 0..12 {
        let mut sync = front.sync(&["--interval", "0"]);
        front.add(&format!("k{n}")).await;
        tokio::time::sleep(Duration::from_millis(40 + 23 * n)).await;
        sync.signal(Signal::KILL);
        sync.ended();
        let file = std::fs::read_to_string(front.file()).unwrap();
        check(&file, front.dir.path()).unwrap();
    }
    // Whoever comes next goes on from there.
    let sync = front.sync(&[]);
    let one = front.add("one").await;
    front.stands(one, "live").await;
    front.browser.until("one.proxy.test", 200).await;
    sync.stop();
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_program_has_hinders_nobody_else_and_is_taken_when_it_is_free() {
    let front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    front.stands(one, "live").await;
    let taken = std::net::TcpListener::bind((front.ip, 9000)).unwrap();
    let two = front.add("two").await;
    front.as_stream(two, "tcp", 9000).await;
    let refused = front.stands(two, "refused").await;
    assert_eq!(
        refused["reason"],
        "Another program has port 9000/tcp on here: stop that one, or remove the service and add it again, which gets it another port."
    );
    front.browser.until("one.proxy.test", 200).await;
    let three = front.add("three").await;
    let live = front.stands(three, "live").await;
    front.browser.until("three.proxy.test", 200).await;
    front.stands(two, "refused").await;
    // The port of UDP with that number is another one.
    let udp = front.add("udp").await;
    front.as_stream(udp, "udp", 9000).await;
    front.stands(udp, "live").await;
    drop(taken);
    let freed = front.stands(two, "live").await;
    let since =
        |service: &serde_json::Value| service["live"][0]["since"].as_str().unwrap().to_owned();
    assert!(
        since(&live) < since(&freed),
        "since it is served, not since it was added"
    );
    assert_eq!(since(&front.stands(three, "live").await), since(&live));
    assert!(answers((front.ip, 9000)));
    sync.stop();
    front.nginx.stop();
}

/// For those who want no `cac` on the proxy: the line of the README, with this test's places.
#[tokio::test(flavor = "multi_thread")]
async fn the_line_of_the_readme_for_cron_does_the_least() {
    let front = front().await;
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let line = readme
        .lines()
        .find(|line| line.starts_with("curl -fsS -m 30"))
        .unwrap();
    let (dir, program) = (
        front.dir.path().display().to_string(),
        find_nginx().unwrap().binary,
    );
    let line = line
        .replace("/etc/nginx/", &format!("{dir}/"))
        .replace(" nginx -", &format!(" {} -e stderr -", program.display()));
    let portal = format!("http://{}:3000", front.ip);
    let cron = |token: &str| {
        let vars = [("TOKEN", token), ("PORTAL", portal.as_str())];
        run("/bin/sh", &["-c", &line], &vars)
    };
    front.add("one").await;
    let done = cron(&front.token);
    assert!(done.status.success(), "{}", text(&done.stderr));
    until("nginx listens", async || {
        answers((front.ip, 8443)).then_some(())
    })
    .await;
    front.browser.until("one.proxy.test", 200).await;
    // Nothing new: nothing is done. Nobody's token, and a file that is not good: it stays.
    assert!(cron(&front.token).status.success());
    let good = std::fs::read_to_string(front.file()).unwrap();
    assert!(!cron("cac_nobodys").status.success());
    std::fs::write(
        front.dir.path().join("more.conf"),
        "no_such_directive on;\n",
    )
    .unwrap();
    front.add("two").await;
    let refused = async || (!cron(&front.token).status.success()).then_some(());
    until("the change is seen", refused).await;
    assert_eq!(std::fs::read_to_string(front.file()).unwrap(), good);
    front.browser.until("one.proxy.test", 200).await;
    front.nginx.stop();
}

/// A second machine: files, processes' addresses and the network are its own, and it reaches the portal.
#[tokio::test(flavor = "multi_thread")]
async fn several_proxies_serve_and_each_says_what_is_live_there() {
    let front = front().await;
    let here = front.sync(&["--interval", "0.2"]);
    let there = front.elsewhere("there");
    let one = front.add("one").await;
    let live = async |id: i64| {
        until("live on both", async || {
            let service = front.stands(id, "live").await;
            let proxies = service["live"].as_array().unwrap().clone();
            let names = proxies
                .iter()
                .map(|on| on["proxy"].as_str().unwrap().to_owned());
            let mut names: Vec<String> = names.collect();
            names.sort();
            (names == ["here", "there"]).then_some(())
        })
        .await;
    };
    live(one).await;
    front.browser.until("one.proxy.test", 200).await;
    // From there nginx reaches no container of ours: a name that it knows is one that does not answer.
    assert_eq!(there.status("one.proxy.test"), 502);
    assert_eq!(there.status("two.proxy.test"), 404);

    // One of them stops: the other goes on, and what comes now is not live everywhere, until that machine is forgotten.
    there.sync.stop();
    let two = front.add("two").await;
    front.browser.until("two.proxy.test", 200).await;
    let service = until("live on one", async || {
        let service = front.stands(two, "pending").await;
        (service["live"][0]["proxy"] == "here").then_some(service)
    })
    .await;
    assert_eq!(service["live"].as_array().unwrap().len(), 1, "{service}");
    let forgotten = front.portal.delete("/proxies/there", &front.admin).await;
    assert!(forgotten.status().is_success());
    front.stands(two, "live").await;
    here.stop();
    front.nginx.stop();
}
