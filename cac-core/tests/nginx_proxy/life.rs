//! Its life and its end: stopped, killed, left behind, wanted twice.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cac_core::nginx::{Proxy, ProxyConfig, ProxyError, Rendered, keep};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, NGINX, PATIENCE, web};

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn stop_ends_every_process_in_time_even_with_an_open_websocket() {
    let lab = Lab::new();
    let names = [("one.cac.localhost", web("one").await)];
    let rendered = lab.render(&names, &[]);
    let proxy = lab.start(&rendered).await;
    let begun = Instant::now();
    proxy.stop().await;
    let idle = begun.elapsed();
    assert_eq!(lab.processes(), Vec::<i32>::new());
    assert!(idle < Duration::from_secs(1), "{idle:?} while idle");

    let proxy = lab.start(&rendered).await;
    let _socket = lab.websocket("one.cac.localhost").await;
    let begun = Instant::now();
    proxy.stop().await;
    let busy = begun.elapsed();
    assert_eq!(lab.processes(), Vec::<i32>::new());
    assert!(busy < Duration::from_secs(2), "{busy:?} with a WebSocket");
    println!("stop: idle {idle:?}, with a WebSocket {busy:?}");
}

#[tokio::test]
async fn a_killed_nginx_is_started_again() {
    let lab = Lab::new();
    let name = "one.cac.localhost";
    let rendered = Arc::new(lab.render(&[(name, web("one").await)], &[]));
    let (_sender, newest) = watch::channel(rendered);
    let stop = CancellationToken::new();
    let kept = keep(lab.config(), newest, stop.clone()).await.unwrap();
    let mut live = kept.live.clone();
    for _ in 0..2 {
        let before = lab.processes();
        kill(lab.master());
        let told = timeout(PATIENCE, live.wait_for(|live| live.trouble.is_some())).await;
        drop(told.unwrap().unwrap());
        let again = timeout(PATIENCE, live.wait_for(|live| live.trouble.is_none())).await;
        drop(again.unwrap().unwrap());
        let now = lab.processes();
        assert!(now.iter().all(|pid| !before.contains(pid)), "{now:?}");
        assert_eq!(lab.get(name).await.unwrap().0, 200);
    }
    stop.cancel();
    kept.ended().await;
    assert_eq!(lab.processes(), Vec::<i32>::new());
}

#[tokio::test]
async fn what_a_killed_predecessor_left_is_ended() {
    let lab = Lab::new();
    let name = "one.cac.localhost";
    let rendered = lab.render(&[(name, web("one").await)], &[]);
    lab.start(&rendered).await.stop().await;
    for master_too in [false, true] {
        // As it stands when neither stop nor the kernel ended it.
        let mut command = Command::new(&NGINX.binary);
        let mut left = command
            .arg("-p")
            .arg(lab.prefix())
            .arg("-c")
            .arg(lab.prefix().join("nginx.conf"))
            .args(["-g", "daemon off;", "-e", "stderr"])
            .current_dir(lab.prefix())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The master takes connections before it has a worker, so that is no sign of one.
        until("its worker lives", || lab.processes().len() > 1).await;
        let before = lab.processes();
        if master_too {
            left.kill().unwrap();
            left.wait().unwrap();
            assert!(!lab.processes().is_empty(), "its workers live on");
        }
        let reaper = std::thread::spawn(move || left.wait());
        let proxy = lab.start(&rendered).await;
        assert_eq!(lab.get(name).await.unwrap().0, 200);
        let now = lab.processes();
        assert!(now.iter().all(|pid| !before.contains(pid)), "{now:?}");
        proxy.stop().await;
        reaper.join().unwrap().unwrap();
    }
}

#[tokio::test]
async fn two_of_us_do_not_share_a_folder() {
    let lab = Lab::new();
    let rendered = lab.render(&[], &[]);
    let proxy = lab.start(&rendered).await;
    let before = lab.processes();
    let second = Proxy::start(lab.config(), &rendered).await.unwrap_err();
    assert!(matches!(second, ProxyError::InUse { .. }), "{second}");
    assert_eq!(lab.processes(), before);
    proxy.stop().await;
    lab.start(&rendered).await.stop().await;
}

#[tokio::test]
async fn dropped_without_a_stop_it_ends_too() {
    let lab = Lab::new();
    drop(lab.start(&lab.render(&[], &[])).await);
    until("nothing is left", || lab.processes().is_empty()).await;
}

/// The body of a process that [`a_killed_parent_takes_nginx_with_it`] starts and kills; by itself it does nothing.
#[tokio::test]
async fn a_parent_to_be_killed() {
    let Some(dir) = std::env::var_os("CAC_TEST_PROXY_DIR") else {
        return;
    };
    let dir = std::path::PathBuf::from(dir);
    let rendered = Rendered {
        text: std::fs::read_to_string(dir.join("wanted.conf")).unwrap(),
        etag: "\"1\"".to_owned(),
        left_out: Vec::new(),
    };
    let _proxy = Proxy::start(ProxyConfig::new(NGINX.clone(), dir), &rendered)
        .await
        .unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_parent_takes_nginx_with_it() {
    let lab = Lab::new();
    std::fs::create_dir_all(lab.prefix()).unwrap();
    let wanted = lab.prefix().join("wanted.conf");
    std::fs::write(wanted, lab.render(&[], &[]).text).unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::a_parent_to_be_killed"])
        .env("CAC_TEST_PROXY_DIR", lab.prefix())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // `nginx -t` listens for a moment, too, and then ends.
    until("it serves", || {
        !lab.processes().is_empty() && std::net::TcpStream::connect((lab.ip, 8443)).is_ok()
    })
    .await;
    assert!(!lab.processes().is_empty());
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("nothing is left", || lab.processes().is_empty()).await;
}
