//! Changes while nginx serves: good ones, bad ones, many, under load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cac_core::nginx::{Applied, Fault, Protocol, Proxy, ProxyError, Rendered, keep};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, PATIENCE, stream, tcp, web};

#[tokio::test]
async fn what_apply_returned_for_is_live_for_every_new_connection() {
    let lab = Lab::new();
    let (one, two) = (web("one").await, web("two").await);
    let name = "web.cac.localhost";
    let mut proxy = lab.start(&lab.render(&[(name, one)], &[])).await;
    let (mut checks, mut reloads) = (Vec::new(), Vec::new());
    for round in 0..10 {
        let (who, upstream) = if round % 2 == 0 {
            ("two", two)
        } else {
            ("one", one)
        };
        let applied = proxy.apply(&lab.render(&[(name, upstream)], &[])).await;
        let Applied::Live { check, reload } = applied.unwrap() else {
            panic!("the file changed");
        };
        checks.push(check);
        reloads.push(reload);
        for _ in 0..8 {
            let (status, answer) = lab.get(name).await.unwrap();
            assert_eq!(status, 200);
            assert!(answer.contains(&format!("I am {who}, ")), "{answer}");
        }
    }
    let same = lab.render(&[(name, one)], &[]);
    assert_eq!(proxy.apply(&same).await.unwrap(), Applied::Unchanged);
    checks.sort();
    reloads.sort();
    println!("nginx -t {:?}, reload {:?} (p50)", checks[5], reloads[5]);
    proxy.stop().await;
}

#[tokio::test]
async fn workers_do_not_pile_up() {
    let lab = Lab::new();
    let upstream = web("one").await;
    let three = |name: &str| {
        let mut rendered = lab.render(&[(name, upstream)], &[]);
        let text = rendered.text;
        rendered.text = text.replace("worker_processes auto;", "worker_processes 3;");
        rendered
    };
    let mut proxy = lab.start(&three("n.cac.localhost")).await;
    for round in 0..30 {
        let rendered = three(&format!("n{round}.cac.localhost"));
        proxy.apply(&rendered).await.unwrap();
    }
    let expected = 1 + 3;
    let begun = Instant::now();
    while lab.processes().len() != expected {
        let left = lab.processes().len();
        assert!(begun.elapsed() < PATIENCE, "{left} instead of {expected}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_bad_candidate_changes_nothing_and_is_told_in_nginx_words() {
    let lab = Lab::new();
    let name = "web.cac.localhost";
    let good = lab.render(&[(name, web("one").await)], &[]);
    let mut proxy = lab.start(&good).await;
    let before = lab.processes();
    let bad = Rendered {
        text: good
            .text
            .replace("server_tokens off;", "server_tokenz off;"),
        etag: "\"bad\"".to_owned(),
        left_out: Vec::new(),
    };
    let error = proxy.apply(&bad).await.unwrap_err();
    assert!(!error.may_pass());
    let said = error.to_string();
    assert!(
        said.contains("unknown directive \"server_tokenz\""),
        "{said}"
    );
    let file = std::fs::read_to_string(lab.prefix().join("nginx.conf")).unwrap();
    assert_eq!(file, good.text);
    assert_eq!(proxy.etag(), good.etag);
    assert_eq!(lab.processes(), before);
    assert_eq!(lab.get(name).await.unwrap().0, 200);
    proxy.stop().await;
}

#[tokio::test]
async fn a_taken_stream_port_leaves_the_old_file_in_force_until_it_is_free() {
    let lab = Lab::new();
    let name = ("web.cac.localhost", web("one").await);
    let old = lab.render(&[name], &[]);
    let mut proxy = lab.start(&old).await;
    let taken = TcpListener::bind((lab.ip, 2222)).await.unwrap();
    let new = lab.render(&[name], &[stream(Protocol::Tcp, 2222, tcp().await)]);
    let error = proxy.apply(&new).await.unwrap_err();
    let address = SocketAddr::from((lab.ip, 2222));
    assert!(matches!(error, ProxyError::PortTaken { address: at } if at == address));
    assert!(error.may_pass());
    assert_eq!(lab.get(name.0).await.unwrap().0, 200);
    let file = std::fs::read_to_string(lab.prefix().join("nginx.conf")).unwrap();
    assert_eq!(file, old.text);
    drop(taken);
    proxy.apply(&new).await.unwrap();
    let mut ssh = TcpStream::connect(address).await.unwrap();
    let mut hello = [0; 4];
    let read = timeout(PATIENCE, ssh.read_exact(&mut hello)).await.unwrap();
    read.unwrap();
    assert_eq!(&hello, b"SSH-");
    proxy.stop().await;
}

#[tokio::test]
async fn a_taken_port_at_the_start_is_one_sentence_that_names_it() {
    let lab = Lab::new();
    let _taken = TcpListener::bind((lab.ip, 8443)).await.unwrap();
    let begun = Instant::now();
    let error = Proxy::start(lab.config(), &lab.render(&[], &[])).await;
    let error = error.unwrap_err().to_string();
    let expected = format!(
        "Port 8443 of {} is taken by another program: stop that one or choose another port.",
        lab.ip
    );
    assert_eq!(error, expected);
    // nginx itself goes on trying for 2.5 s.
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(lab.processes(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_drop_nothing() {
    let lab = Arc::new(Lab::new());
    let upstream = web("one").await;
    let name = "web.cac.localhost";
    let mut proxy = lab.start(&lab.render(&[(name, upstream)], &[])).await;
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (lab, done, answered) = (lab.clone(), done.clone(), answered.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let (status, answer) = lab.get(name).await.unwrap();
                    assert!(status == 200 && answer.contains("I am one"), "{answer}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..10 {
        let so_far = answered.load(Ordering::Relaxed);
        let more = format!("n{round}.cac.localhost");
        let rendered = lab.render(&[(name, upstream), (&more, upstream)], &[]);
        proxy.apply(&rendered).await.unwrap();
        let begun = Instant::now();
        while answered.load(Ordering::Relaxed) < so_far + 20 {
            assert!(begun.elapsed() < PATIENCE, "requests stand still");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_burst_becomes_few_reloads_and_its_last_state_is_live() {
    let lab = Lab::new();
    let upstream = web("one").await;
    let nth = |n: u32| Arc::new(lab.render(&[(&format!("n{n}.cac.localhost"), upstream)], &[]));
    let (sender, newest) = watch::channel(nth(0));
    let stop = CancellationToken::new();
    let mut config = lab.config();
    config.min_interval = Duration::from_millis(500);
    let kept = keep(config, newest, stop.clone()).await.unwrap();
    let mut live = kept.live.clone();
    let reloads = tokio::spawn(async move {
        let mut etags = Vec::new();
        while live.changed().await.is_ok() {
            etags.push(live.borrow_and_update().etag.clone());
        }
        etags
    });
    let mut live = kept.live.clone();
    let begun = Instant::now();
    for n in 1..=50 {
        sender.send_replace(nth(n));
        if n == 1 {
            let first = timeout(PATIENCE, live.changed()).await.unwrap();
            first.unwrap();
            // It waited for nothing: the time before it was quiet.
            assert_eq!(live.borrow_and_update().etag, nth(1).etag);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let last = nth(50).etag.clone();
    let reached = timeout(PATIENCE, live.wait_for(|live| live.etag == last)).await;
    drop(reached.unwrap().unwrap());
    let allowed = 2 + begun.elapsed().as_millis() / 500;
    assert_eq!(lab.get("n50.cac.localhost").await.unwrap().0, 200);
    assert_eq!(lab.get("n1.cac.localhost").await.unwrap().0, 404);
    stop.cancel();
    kept.ended().await;
    let etags = reloads.await.unwrap();
    assert!(etags.len() as u128 <= allowed, "{} reloads", etags.len());
}

#[tokio::test]
async fn the_loop_tells_of_a_refused_file_and_goes_on_with_the_next() {
    let lab = Lab::new();
    let name = "web.cac.localhost";
    let (one, two) = (web("one").await, web("two").await);
    let good = lab.render(&[(name, one)], &[]);
    let (sender, newest) = watch::channel(Arc::new(good.clone()));
    let stop = CancellationToken::new();
    let mut config = lab.config();
    config.min_interval = Duration::from_millis(20);
    let kept = keep(config, newest, stop.clone()).await.unwrap();
    let mut live = kept.live.clone();
    let bad = Rendered {
        text: format!("{}nonsense on;\n", good.text),
        etag: "\"bad\"".to_owned(),
        left_out: Vec::new(),
    };
    sender.send_replace(Arc::new(bad));
    let told = timeout(PATIENCE, live.wait_for(|live| live.trouble.is_some())).await;
    let told = told.unwrap().unwrap().clone();
    match told.trouble.unwrap() {
        Fault::Refused { etag, words } => {
            assert!(etag == "\"bad\"" && words.contains("nonsense"), "{words}");
        }
        down => panic!("{down:?}"),
    }
    assert_eq!(told.etag, good.etag);
    assert_eq!(lab.get(name).await.unwrap().0, 200);
    let next = lab.render(&[(name, two)], &[]);
    sender.send_replace(Arc::new(next.clone()));
    let fine = timeout(PATIENCE, live.wait_for(|live| live.etag == next.etag)).await;
    assert_eq!(fine.unwrap().unwrap().trouble, None);
    assert!(lab.get(name).await.unwrap().1.contains("I am two"));
    stop.cancel();
    kept.ended().await;
}
