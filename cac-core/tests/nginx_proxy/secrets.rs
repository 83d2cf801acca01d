//! What must not pass: identities that clients claim on their way to containers, and one-time links on their way to logs.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use cac_core::nginx::{ConfigPath, ErrorLog, HttpOptions, IDENTITY_HEADERS};
use cac_core::one_time_link;
use tokio::net::TcpListener;

use crate::lab::{Lab, NGINX, PATIENCE, request, web};

/// Row 35 of the field reports: `X-Forwarded-User` and `Forwarded` of any client reached the application, which believes them.
#[tokio::test]
async fn identities_that_clients_claim_never_reach_a_container() {
    let mut lab = Lab::new();
    // An operator's own file may allow underscores, which many an application reads as dashes.
    let include = lab.dir.path().join("own.conf");
    std::fs::write(
        &include,
        "underscores_in_headers on;\nignore_invalid_headers off;\n",
    )
    .unwrap();
    lab.settings.include = Some(ConfigPath::try_from(include.as_path()).unwrap());
    let portal = ("portal.cac.localhost".parse().unwrap(), web("portal").await);
    lab.settings.portal = Some(portal);
    let own = HttpOptions {
        timeout: Some(60),
        ..HttpOptions::default()
    };
    let services = [
        (
            "one.cac.localhost",
            web("one").await,
            HttpOptions::default(),
        ),
        ("two.cac.localhost", web("two").await, own),
    ];
    let proxy = lab.start(&lab.render_own(&services)).await;
    let mut claims = String::new();
    for name in IDENTITY_HEADERS {
        for spelling in [
            name.to_owned(),
            name.to_lowercase(),
            name.to_uppercase(),
            name.replace('-', "_"),
            name.replacen('-', "_", 1),
            name.replace('-', "."),
        ] {
            claims.push_str(&format!("{spelling}: root\r\n"));
        }
    }
    let kept = "Authorization: Bearer kept\r\nX-Auth-Token: kept\r\nCookie: kept=1\r\nX-Request-Id: kept\r\n";
    for name in ["one", "two", "portal"] {
        let host = format!("{name}.cac.localhost");
        let more = format!("{claims}{kept}\r\n");
        let client = lab.tls(&host).await.unwrap();
        let (status, answer) = request(client, &host, "/", &more).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        assert!(!answer.contains("root"), "{name}: {answer}");
        for line in kept.lines() {
            assert!(answer.contains(line), "{name}: {line} is not in {answer}");
        }
    }
    proxy.stop().await;
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// M8 of the attack: the link of an account stood in access.log for as long as it worked; while the portal is down nginx writes the
/// whole request line into its error log, too.
#[tokio::test]
async fn one_time_links_are_in_no_log_also_while_the_portal_is_down() {
    let mut lab = Lab::new();
    // Nobody listens there any more.
    let listener = TcpListener::bind((lab.ip, 0)).await.unwrap();
    let down: SocketAddr = listener.local_addr().unwrap();
    drop(listener);
    lab.settings.portal = Some(("portal.cac.localhost".parse().unwrap(), down));
    let path = |name: &str| ConfigPath::try_from(lab.prefix().join(name).as_path()).unwrap();
    let (errors, accesses) = (path("error.log"), path("access.log"));
    lab.settings.error_log = ErrorLog::File(errors.clone());
    lab.settings.access_log = Some(accesses.clone());
    std::fs::create_dir_all(lab.prefix().join("temp")).unwrap();
    let file = lab.prefix().join("nginx.conf");
    std::fs::write(&file, lab.render(&[("one.cac.localhost", down)], &[]).text).unwrap();
    let nginx = Command::new(&NGINX.binary)
        .arg("-p")
        .arg(lab.prefix())
        .arg("-c")
        .arg(&file)
        // One process, which ends when it is killed.
        .args(["-e", "stderr", "-g", "daemon off; master_process off;"])
        .stderr(Stdio::null())
        .spawn();
    let _running = Running(nginx.unwrap());
    let began = std::time::Instant::now();
    while tokio::net::TcpStream::connect((lab.ip, 8443))
        .await
        .is_err()
    {
        assert!(began.elapsed() < PATIENCE, "nginx does not start");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let host = "portal.cac.localhost";
    let visible = "/containers/visible";
    let mut paths = vec![visible.to_owned()];
    for prefix in one_time_link::PREFIXES {
        paths.push(format!("{prefix}SECRET"));
        paths.push(format!("{prefix}SECRET?next=SECRET"));
        paths.push(format!("/{prefix}SECRET"));
        paths.push(format!("/x/..{prefix}SECRET"));
        paths.push(format!("{}SECRET", prefix.replacen('c', "%63", 1)));
    }
    for path in &paths {
        let client = lab.tls(host).await.unwrap();
        let (status, _) = request(client, host, path, "").await.unwrap();
        assert_eq!(status, 502, "{path}");
        let (status, answer) = request(lab.plain().await, host, path, "").await.unwrap();
        assert_eq!(status, 308, "{path}");
        assert!(
            answer.contains(&format!("Location: https://{host}:8443{path}\r\n")),
            "{answer}"
        );
    }
    let read = |log: &ConfigPath| std::fs::read_to_string(log.as_path()).unwrap();
    let (errors, accesses) = (read(&errors), read(&accesses));
    for log in [&errors, &accesses] {
        assert!(log.contains(visible), "{log}");
        assert!(!log.contains("SECRET"), "{log}");
    }
    let counted = accesses.matches("\"GET (one-time link) HTTP/1.1\"").count();
    assert_eq!(counted, 2 * (paths.len() - 1), "{accesses}");
}
