//! What cac writes passes, and what it never writes does not.

use std::collections::BTreeSet;

use super::super::{
    ConfigPath, ErrorLog, Flavour, HttpOptions, HttpService, Protocol, Settings, StreamService,
    render,
};
use super::*;

fn path(text: &str) -> ConfigPath {
    text.parse().unwrap()
}

fn limits() -> LocalLimits {
    LocalLimits::debian(&StreamModule::debian())
}

fn services() -> (Vec<HttpService>, Vec<StreamService>) {
    let http = |name: &str, upstream: &str, options| HttpService {
        name: name.parse().unwrap(),
        upstream: upstream.parse().unwrap(),
        options,
    };
    let own = HttpOptions {
        https: true,
        max_body: Some(7),
        timeout: Some(9),
    };
    let stream = |protocol, port, tls| StreamService {
        protocol,
        port,
        upstream: "127.1.0.2:22".parse().unwrap(),
        tls,
    };
    (
        vec![
            http("web.example.org", "127.1.0.2:8080", HttpOptions::default()),
            http("six.example.org", "[::1]:80", HttpOptions::default()),
            http("own.example.org", "127.1.0.3:8080", own),
        ],
        vec![
            stream(Protocol::Tcp, 2222, false),
            stream(Protocol::Tcp, 2223, true),
            stream(Protocol::Udp, 10001, false),
        ],
    )
}

/// The beginnings of the templates' lines, up to the first thing that is filled in. Read from the folder, so that no template is left out.
fn beginnings() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let starts = text.lines().map(|line| {
            let end = line.find("{{").into_iter().chain(line.find("{%")).min();
            line[..end.unwrap_or(line.len())].trim()
        });
        found.extend(starts.filter(|start| !start.is_empty()).map(str::to_owned));
    }
    assert!(found.len() > 80, "{found:?}");
    found
}

/// Whoever adds a directive to a template adds it to the allowed ones, too: each line of each template is in one of these files.
#[test]
fn whatever_cac_writes_is_allowed() {
    let (http, streams) = services();
    let mut unseen = beginnings();
    for flavour in [Flavour::Debian1_22, Flavour::V1_25] {
        for bits in 0..32 {
            let has = |bit: u32| bits & (1 << bit) != 0;
            let mut settings = Settings::debian(path("/etc/ssl/cac.pem"), path("/etc/ssl/cac.key"));
            settings.flavour = flavour;
            settings.http3 = has(0);
            settings.include = has(1).then(|| path("/etc/nginx/conf.d/*.conf"));
            settings.temp_dir = has(2).then(|| path("/var/lib/nginx/cac"));
            if has(3) {
                let portal = "cac.example.org".parse().unwrap();
                settings.portal = Some((portal, "127.0.0.1:3000".parse().unwrap()));
            }
            if has(4) {
                settings.access_log = None;
                settings.error_log = ErrorLog::Stderr;
                settings.https_listen.clear();
                settings.user = None;
                settings.open_files = None;
                settings.stream_module = StreamModule::Builtin;
            }
            let file = render(&settings, &http, &streams).text;
            assert_eq!(limits().check(&file), Ok(()), "{file}");
            unseen.retain(|start| !file.lines().any(|line| line.trim().starts_with(&**start)));
            let empty = render(&settings, &[], &[]).text;
            assert_eq!(limits().check(&empty), Ok(()), "{empty}");
        }
    }
    assert!(unseen.is_empty(), "in none of the files: {unseen:?}");
}

/// Each is one line changed or added in a good file.
#[test]
fn what_cac_never_writes_is_refused() {
    let (http, streams) = services();
    let mut settings = Settings::debian(path("/etc/ssl/cac.pem"), path("/etc/ssl/cac.key"));
    settings.include = Some(path("/etc/nginx/conf.d/*.conf"));
    let good = render(&settings, &http, &streams).text;
    assert_eq!(limits().check(&good), Ok(()));
    let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
    let (location, server) = ("proxy_http_version 1.1;", "server_name _;");
    for (old, new) in [
        (module, "load_module /tmp/evil.so;"),
        (module, "load_module modules/../../../../tmp/evil.so;"),
        ("user www-data;", "user root;"),
        ("user www-data;", "user www-data root;"),
        ("pid /run/nginx.pid;", "pid /etc/cron.d/x;"),
        (
            "pid /run/nginx.pid;",
            "pid /run/nginx.pid; env LD_PRELOAD=/tmp/x;",
        ),
        (
            "error_log /var/log/nginx/error.log warn;",
            "error_log /etc/cron.d/x warn;",
        ),
        (
            "error_log /var/log/nginx/error.log warn;",
            "error_log /var/log/nginx/../../etc/x;",
        ),
        (
            "error_log /var/log/nginx/error.log warn;",
            "error_log syslog:server=127.0.0.1;",
        ),
        (
            "access_log /var/log/nginx/access.log cac;",
            "access_log /etc/cron.d/x cac;",
        ),
        (
            "access_log /var/log/nginx/access.log cac;",
            "access_log /var/log/nginx/$host.log cac;",
        ),
        ("include /etc/nginx/conf.d/*.conf;", "include /tmp/*.conf;"),
        ("events {", "ssl_engine dynamic;\nevents {"),
        ("events {", "daemon off; events {"),
        ("server_tokens off;", "perl_modules /tmp;"),
        (
            "server_tokens off;",
            "init_by_lua_block { os.execute(\"id\") }",
        ),
        ("server_tokens off;", "js_import /tmp/x.js;"),
        (
            "server_tokens off;",
            "proxy_cache_path /tmp/x keys_zone=a:1m;",
        ),
        ("server_tokens off;", "client_body_temp_path /etc/x;"),
        (server, "server_name _; root /;"),
        (server, "server_name _; location /x { alias /etc/; }"),
        (
            server,
            "server_name _; location /x { fastcgi_pass unix:/run/php.sock; }",
        ),
        (location, "proxy_store /etc/x;"),
        (location, "proxy_pass http://unix:/run/docker.sock:/;"),
        (location, "proxy_pass http://$http_x;"),
        (location, "content_by_lua_file /tmp/x;"),
        (location, "if ($host) { proxy_pass http://127.0.0.1:80; }"),
        (
            "web.example.org 127.1.0.2:8080;",
            "web.example.org unix:/run/x.sock:;",
        ),
        ("web.example.org 127.1.0.2:8080;", "include /etc/passwd;"),
        ("websocket $http_upgrade;", "include /etc/passwd;"),
        ("websocket $http_upgrade;", "\"include\" /etc/passwd;"),
        // nginx knows variables whatever their case.
        (
            "map $host $cac_upstream {",
            "map $host $CAC_UPSTREAM { default unix:/run/docker.sock:; }\nmap $host $cac_upstream {",
        ),
        (
            "map $host $cac_upstream {",
            "map $host $other { default 1; }\nmap $host $cac_upstream {",
        ),
        // A group of a pattern is a variable.
        (server, "server_name \"~^(?<cac_upstream>.+)$\";"),
        ("websocket $http_upgrade;", "\"~(?<cac_upstream>.+)\" 1;"),
        (
            "location / {",
            "location ~ \"^/(?P<cac_upstream>unix:.+)$\" {",
        ),
        ("location / {", "location ~* /x {"),
        (
            "if ($cac_upstream = \"\") {",
            "if ($uri ~ \"/(?<cac_upstream>.+)\") {",
        ),
        ("if ($cac_upstream = \"\") {", "if ($http_x) {"),
        (
            "proxy_redirect off;",
            "proxy_redirect \"~(?<cac_upstream>.+)\" /;",
        ),
        (
            "listen 0.0.0.0:2222 so_keepalive=on;",
            "listen unix:/run/x.sock;",
        ),
        (
            "proxy_pass 127.1.0.2:22;",
            "proxy_pass unix:/run/docker.sock;",
        ),
        (
            "ssl_certificate_key /etc/ssl/cac.key;",
            "ssl_certificate_key engine:x:y;",
        ),
        (
            "ssl_certificate_key /etc/ssl/cac.key;",
            "ssl_certificate_key /etc/ssl/$host.key;",
        ),
    ] {
        let bad = good.replace(old, new);
        assert_ne!(bad, good, "{old} is not in the file");
        let refused = limits().check(&bad);
        assert!(refused.is_err(), "{new}");
    }
}
