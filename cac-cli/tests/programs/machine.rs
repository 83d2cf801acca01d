//! What happens on a proxy's machine beside `cac proxy sync`: nginx ends and starts, others take its ports, its files are somebody else's.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use cac_core::testing::nginx::check;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
use rustix::process::Signal;
use serde_json::Value;

use crate::front::{Front, borrowed, nginx};
use crate::lab::{answers, run, text, until};

async fn front() -> Front {
    Front::new(&["one", "two"].map(str::to_owned)).await
}

fn reason(service: &Value) -> String {
    service["reason"].as_str().unwrap_or_default().to_owned()
}

fn since(service: &Value) -> String {
    service["live"][0]["since"].as_str().unwrap().to_owned()
}

/// As a timer does it; it must end well.
fn pulled(front: &Front) {
    let done = front.once(&front.token);
    assert!(done.status.success(), "{}", text(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_that_ended_serves_nothing_and_finds_a_file_that_it_can_start_on() {
    let mut front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    let two = front.add("two").await;
    front.as_stream(two, "tcp", 9000).await;
    front.stands(two, "live").await;
    let first = front.stands(one, "live").await;

    let dir = front.dir.path().to_owned();
    front.nginx.signal(Signal::TERM);
    front.nginx.ended();
    let down = front.stands(one, "refused").await;
    assert!(
        reason(&down).starts_with("Nothing is live on here: nginx does not run"),
        "{down}"
    );
    assert_eq!(down["live"].as_array().map_or(0, Vec::len), 0, "{down}");
    // Another program is quicker at one of its ports.
    let taken = TcpListener::bind((front.ip, 9000)).unwrap();
    until("the file is without the port", async || {
        let file = fs::read_to_string(front.file()).unwrap();
        (!file.contains(":9000")).then_some(())
    })
    .await;
    front.nginx = nginx(&dir);
    let again = front.stands(one, "live").await;
    assert!(since(&again) > since(&first), "since it was started");
    front.browser.until("one.proxy.test", 200).await;
    let refused = front.stands(two, "refused").await;
    assert!(reason(&refused).starts_with("Another program has port 9000/tcp on here"));
    drop(taken);
    front.stands(two, "live").await;
    assert!(answers((front.ip, 9000)));
    sync.stop();
    front.nginx.stop();
}

/// What keeps it from starting again does not hide that it ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_that_ended_is_not_live_though_its_newest_file_is_refused() {
    let mut front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    let first = front.stands(one, "live").await;
    let more = front.dir.path().join("more.conf");
    fs::write(&more, "no_such_directive on;\n").unwrap();
    front.nginx.signal(Signal::TERM);
    front.nginx.ended();
    let down = front.stands(one, "refused").await;
    let words = "Nothing is live on here: nginx does not run, and would not start: \
                 nginx refuses the configuration: unknown directive \"no_such_directive\"";
    assert!(reason(&down).starts_with(words), "{down}");
    fs::remove_file(&more).unwrap();
    front.nginx = nginx(front.dir.path());
    let again = front.stands(one, "live").await;
    assert!(since(&again) > since(&first));
    sync.stop();
    front.nginx.stop();
}

/// Its first process is there, and nobody who takes connections.
#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_that_only_ends_what_it_carries_is_not_live() {
    let mut front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    let two = front.add("two").await;
    front.as_stream(two, "tcp", 9000).await;
    front.stands(two, "live").await;
    front.stands(one, "live").await;
    let carried = TcpStream::connect((front.ip, 9000)).unwrap();
    front.nginx.signal(Signal::QUIT);
    let down = front.stands(one, "refused").await;
    let words = "Nothing is live on here: nginx (process ";
    let told = reason(&down);
    assert!(
        told.starts_with(words) && told.ends_with("takes no connections: start it again."),
        "{told}"
    );
    drop(carried);
    front.nginx.ended();
    front.nginx = nginx(front.dir.path());
    front.stands(one, "live").await;
    front.stands(two, "live").await;
    sync.stop();
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_names_another_file_than_nginx_reads_is_told_and_changes_nothing() {
    let front = front().await;
    let one = front.add("one").await;
    let wrong = front.dir.path().join("wrong.conf");
    let pid = format!("pid {}/nginx.pid;\n", front.dir.path().display());
    fs::write(&wrong, &pid).unwrap();
    let before = workers(&front);
    let told = front.once_with(&front.token, &wrong);
    let said = text(&told.stderr);
    let words = format!(
        "does not read {}, but {}: say its own file with --file.",
        wrong.display(),
        front.file().display()
    );
    assert!(!told.status.success() && said.contains(&words), "{said}");
    assert_eq!(fs::read_to_string(&wrong).unwrap(), pid);
    assert_eq!(workers(&front), before);
    let down = front.stands(one, "refused").await;
    assert!(reason(&down).contains(&words), "{down}");
    front.nginx.stop();
}

/// The command ends before nginx is there again.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_may_be_a_restart_that_takes_its_time() {
    let mut front = front().await;
    let pid = front.dir.path().join("nginx.pid");
    let reload = format!("kill $(cat {})", pid.display()).leak();
    let sync = front.sync(&["--interval", "0.2", "--reload", reload]);
    for name in ["one", "two"] {
        let id = front.add(name).await;
        front.nginx.ended();
        tokio::time::sleep(Duration::from_millis(500)).await;
        front.nginx = nginx(front.dir.path());
        front.stands(id, "live").await;
        front
            .browser
            .until(&format!("{name}.proxy.test"), 200)
            .await;
        let before = fs::read_to_string(&pid).unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(fs::read_to_string(&pid).unwrap(), before, "once is enough");
    }
    sync.stop();
    front.nginx.stop();
}

/// nginx would share a port of UDP with whoever allows that, and take its packets away.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_keeps_its_port_of_udp_from_the_first_run_on() {
    let front = front().await;
    let at = SocketAddr::from((front.ip, 9000));
    let theirs = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&theirs, true).unwrap();
    bind(&theirs, &at).unwrap();
    let theirs = UdpSocket::from(theirs);
    theirs
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let one = front.add("one").await;
    front.as_stream(one, "udp", 9000).await;
    pulled(&front);
    let refused = front.stands(one, "refused").await;
    assert!(reason(&refused).starts_with("Another program has port 9000/udp on here"));
    for _ in 0..5 {
        let sender = UdpSocket::bind((front.ip, 0)).unwrap();
        sender.send_to(b"hello", at).unwrap();
        let mut got = [0; 5];
        theirs.recv(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    }
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_taken_ports_hold_nobody_up() {
    let front = front().await;
    let ports = 9000..9040;
    let taken: Vec<TcpListener> = ports
        .clone()
        .map(|port| TcpListener::bind((front.ip, port)).unwrap())
        .collect();
    let mut last = 0;
    for port in ports {
        last = front.add(&format!("s{port}")).await;
        front.as_stream(last, "tcp", port).await;
    }
    let one = front.add("one").await;
    let sync = front.sync(&["--interval", "0.2"]);
    front.stands(one, "live").await;
    front.stands(last, "refused").await;
    drop(taken);
    front.stands(last, "live").await;
    sync.stop();
    front.nginx.stop();
}

/// Of what nginx did not take over nothing stays behind, though whoever put it there was ended in between.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_that_is_put_back_is_the_one_that_nginx_was_on() {
    let mut front = front().await;
    let one = front.add("one").await;
    pulled(&front);
    front.stands(one, "live").await;
    let good = fs::read_to_string(front.file()).unwrap();
    let _taken = TcpListener::bind((front.ip, 8444)).unwrap();
    front.set("NGINX_HTTPS_PORTS", "8443,8444").await;
    let request = front.portal.request(reqwest::Method::GET, "/nginx.conf");
    let bad = request.header("cookie", &front.admin).send().await.unwrap();
    fs::write(front.file(), bad.text().await.unwrap()).unwrap();
    let told = front.once(&front.token);
    let said = text(&told.stderr);
    assert!(
        !told.status.success() && said.contains("Port 8444"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(front.file()).unwrap(), good);
    front.browser.until("one.proxy.test", 200).await;
    front.nginx.stop();
}

/// The only proxy, once it is so.
async fn reported(front: &Front, right: impl Fn(&Value) -> bool) -> Value {
    until("a report", async || {
        let answer = front.portal.get("/proxies", &front.admin).await;
        let proxies: Value = answer.json().await.ok()?;
        proxies.get(0).filter(|proxy| right(proxy)).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_nginx_itself_that_is_taken_is_none_of_a_service() {
    let mut front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    front.stands(one, "live").await;
    let taken = TcpListener::bind((front.ip, 8444)).unwrap();
    front.set("NGINX_HTTPS_PORTS", "8443,8444").await;
    let refused = reported(&front, |proxy| proxy["reason"].is_string()).await;
    let words = format!("Port 8444 of {} is taken by another program", front.ip);
    assert!(reason(&refused).starts_with(&words), "{refused}");
    assert_eq!(refused["taken"].as_array().unwrap().len(), 0, "{refused}");
    front.browser.until("one.proxy.test", 200).await;
    drop(taken);
    reported(&front, |proxy| proxy["reason"].is_null()).await;
    assert!(answers((front.ip, 8444)));
    sync.stop();
    front.nginx.stop();
}

/// nginx' workers, which a reload replaces.
fn workers(front: &Front) -> String {
    let pid = fs::read_to_string(front.dir.path().join("nginx.pid")).unwrap();
    let pid = pid.trim();
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn once_leaves_nginx_alone_where_nothing_is_new() {
    let front = front().await;
    let taken = TcpListener::bind((front.ip, 9000)).unwrap();
    let one = front.add("one").await;
    let two = front.add("two").await;
    front.as_stream(two, "tcp", 9000).await;
    pulled(&front);
    front.stands(one, "live").await;
    front.stands(two, "refused").await;
    front.browser.until("one.proxy.test", 200).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = workers(&front);
    for _ in 0..3 {
        pulled(&front);
    }
    assert_eq!(workers(&front), before);
    drop(taken);
    pulled(&front);
    assert_ne!(workers(&front), before);
    front.stands(two, "live").await;

    // Whoever may not report is told.
    let mute = front.new_token(&["nginx:read"]).await;
    let told = front.once(&mute);
    assert_eq!(told.status.code(), Some(3), "{}", text(&told.stderr));
    let said = text(&told.stderr);
    assert!(
        said.contains("The portal was not told what is live here"),
        "{said}"
    );
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_file_of_any_bytes_is_kept_and_its_name_may_be_relative() {
    let front = front().await;
    let pid = front.dir.path().join("nginx.pid");
    let mut foreign = b"# caf\xe9\n".to_vec();
    foreign.extend(format!("pid {};\nevents {{}}\n", pid.display()).bytes());
    fs::write(front.file(), &foreign).unwrap();
    fs::set_permissions(front.file(), Permissions::from_mode(0o600)).unwrap();
    // Somebody was ended in the middle of it.
    let half = front.dir.path().join("nginx.conf.cac-half");
    fs::write(half, &foreign[..4]).unwrap();
    let one = front.add("one").await;
    let script = r#"cd "$0" && exec "$1" proxy sync --once --file nginx.conf --name here"#;
    let dir = front.dir.path().display().to_string();
    let words = ["-c", script, &dir, env!("CARGO_BIN_EXE_cac")];
    let vars = front.puller_vars(&front.token);
    let done = run("/bin/sh", &words, &borrowed(&vars));
    assert!(done.status.success(), "{}", text(&done.stderr));
    front.stands(one, "live").await;
    let kept = front.dir.path().join("nginx.conf.before-cac");
    assert_eq!(fs::read(&kept).unwrap(), foreign);
    assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
    // Nor is a later one of theirs lost.
    let second = format!("# another\npid {};\nevents {{}}\n", pid.display());
    for _ in 0..2 {
        fs::write(front.file(), &second).unwrap();
        pulled(&front);
    }
    assert_eq!(fs::read(&kept).unwrap(), foreign);
    let kept = front.dir.path().join("nginx.conf.before-cac.2");
    assert_eq!(fs::read_to_string(kept).unwrap(), second);
    assert!(!front.dir.path().join("nginx.conf.before-cac.3").exists());
    front.nginx.stop();
}

/// The newest file is refused, for a reason that hinders no start on the one before.
#[tokio::test(flavor = "multi_thread")]
async fn what_nginx_started_on_is_live_though_the_newest_is_refused() {
    let mut front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    let first = front.stands(one, "live").await;
    let missing = front.dir.path().join("missing.pem").display().to_string();
    front.set("NGINX_CERTIFICATE", &missing).await;
    reported(&front, |proxy| proxy["reason"].is_string()).await;
    front.nginx.signal(Signal::TERM);
    front.nginx.ended();
    front.stands(one, "refused").await;
    front.nginx = nginx(front.dir.path());
    let again = front.stands(one, "live").await;
    assert!(since(&again) > since(&first));
    front.browser.until("one.proxy.test", 200).await;
    reported(&front, |proxy| {
        proxy["reason"].is_string() && proxy["revision"].is_string()
    })
    .await;
    sync.stop();
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_which_nginx_could_not_start_does_not_wait_for_its_start() {
    let mut front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    front.stands(one, "live").await;
    let good = fs::read_to_string(front.file()).unwrap();
    let _taken = TcpListener::bind((front.ip, 8444)).unwrap();
    front.set("NGINX_HTTPS_PORTS", "8443,8444").await;
    reported(&front, |proxy| proxy["reason"].is_string()).await;
    front.nginx.signal(Signal::TERM);
    front.nginx.ended();
    let down = reported(&front, |proxy| proxy["revision"].is_null()).await;
    let words = "nginx does not run, and would not start: Port 8444 of ";
    assert!(reason(&down).starts_with(words), "{down}");
    assert_eq!(fs::read_to_string(front.file()).unwrap(), good);
    front.nginx = nginx(front.dir.path());
    front.stands(one, "live").await;
    front.browser.until("one.proxy.test", 200).await;
    sync.stop();
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nginx_does_not_take_the_first_file_the_operators_is_back_as_it_was() {
    let mut front = front().await;
    let foreign = fs::read_to_string(front.file()).unwrap();
    fs::set_permissions(front.file(), Permissions::from_mode(0o600)).unwrap();
    let _taken = TcpListener::bind((front.ip, 8444)).unwrap();
    front.set("NGINX_HTTPS_PORTS", "8443,8444").await;
    let told = front.once(&front.token);
    let said = text(&told.stderr);
    assert!(
        !told.status.success() && said.contains("Port 8444"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(front.file()).unwrap(), foreign);
    let mode = fs::metadata(front.file()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!front.dir.path().join("nginx.conf.cac-live").exists());
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_with_the_number_of_nginx_may_be_another_one() {
    let mut front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    front.stands(one, "live").await;
    let pid = front.dir.path().join("other.pid").display().to_string();
    front.set("NGINX_PID", &pid).await;
    until("nginx says its number there", async || {
        fs::read_to_string(&pid).ok().filter(|pid| !pid.is_empty())
    })
    .await;
    let two = front.add("two").await;
    front.stands(two, "live").await;
    front.stands(one, "live").await;
    sync.stop();
    front.nginx.stop();
}

/// Somebody writes into nginx' file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_changes_is_put_back() {
    let front = front().await;
    let sync = front.sync(&["--interval", "0.2"]);
    let one = front.add("one").await;
    front.stands(one, "live").await;
    let ours = fs::read_to_string(front.file()).unwrap();
    fs::write(front.file(), format!("{ours}no_such_directive on;\n")).unwrap();
    until("it is put back", async || {
        (fs::read_to_string(front.file()).unwrap() == ours).then_some(())
    })
    .await;
    check(&ours, front.dir.path()).unwrap();
    front.stands(one, "live").await;
    sync.stop();
    front.nginx.stop();
}

/// nginx cannot take a port everywhere that it has at one address.
#[tokio::test(flavor = "multi_thread")]
async fn who_moves_nginx_to_every_address_is_told_to_stop_it() {
    let mut front = front().await;
    let there = front.elsewhere("there");
    let one = front.add("one").await;
    front.stands(one, "live").await;
    front.set("NGINX_LISTEN", "0.0.0.0").await;
    let told = reported(&front, |proxy| proxy["reason"].is_string()).await;
    let words = "nginx itself has port 8443 at another address and cannot change over to 0.0.0.0";
    let others = "nginx itself has port 8080 at another address and cannot change over to 0.0.0.0";
    let said = reason(&told);
    assert!(
        said.starts_with(words) || said.starts_with(others),
        "{said}"
    );
    assert_eq!(there.status("one.proxy.test"), 502, "it goes on");
    there.sync.stop();
    front.nginx.stop();
}
