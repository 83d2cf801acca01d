//! Arbitrary strings and numbers at everything that reaches the file: only directives of ours come out, and nginx takes them.
//! `CASES=100000 cargo test -p cac-core --test nginx_render` is the long form.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use cac_core::nginx::{
    HttpOptions, HttpService, Protocol, PublicName, Settings, StreamService, render,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{check, checkable, http, stream};

/// A configuration cut into directives by nginx' own rules (`ngx_conf_read_token`); the last word of each is what
/// ended it.
fn directives(text: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '#' => while chars.next_if(|&c| c != '\n').is_some() {},
            ';' | '{' | '}' => {
                words.push(c.to_string());
                all.push(std::mem::take(&mut words));
            }
            _ => {
                let quoted = matches!(c, '"' | '\'');
                let mut word = String::from(c);
                while let Some(inner) = chars.next_if(|inner| {
                    if quoted {
                        *inner != c
                    } else {
                        !matches!(inner, ' ' | '\t' | '\r' | '\n' | ';' | '{')
                    }
                }) {
                    word.push(inner);
                    if inner == '\\' {
                        word.extend(chars.next());
                    }
                }
                if quoted {
                    chars.next();
                }
                words.push(word);
            }
        }
    }
    assert!(words.is_empty(), "an unfinished directive: {words:?}");
    all
}

/// Strings that try to leave their place, and mutilated good ones.
fn hostile(random: &mut StdRng) -> String {
    #[rustfmt::skip]
    const PARTS: &[&str] = &[
        "a", "web", "example.org", ".", "-", ";", "{", "}", "\n", "\r", " ", "\t", "\"", "'", "\\", "$", "$host", "#",
        "*", "/", "..", "\0", "é", "\u{2028}", "return 200", "include /etc/passwd", "default", "hostnames", "volatile",
        "server_name", "~", "0", "127.0.0.1", ":80", "%00", "{{ pid }}", "{% raw %}", "<", "A", "_", "x-y", "\u{7f}",
        "/tmp/x", "a.b", "unix:",
    ];
    let mut text = String::new();
    for _ in 0..random.random_range(0..6) {
        if random.random_ratio(1, 12) {
            text.push(char::from(random.random::<u8>()));
        } else {
            text.push_str(PARTS[random.random_range(0..PARTS.len())]);
        }
    }
    if random.random_ratio(1, 3) {
        // Nearly good: at most one part too many somewhere in a name of its own.
        let at = random.random_range(0..=3);
        text.truncate(text.chars().next().map_or(0, char::len_utf8));
        text = format!("web.example{}.org", random.random::<u16>()).replacen(
            '.',
            &format!("{text}."),
            at,
        );
    }
    text
}

/// Settings and services with as much of the hostile strings as the types let through. The include ends in `*`:
/// nginx takes a pattern that matches nothing, and refuses one missing file.
fn random_case(
    random: &mut StdRng,
    dir: &Path,
) -> (Settings, Vec<HttpService>, Vec<StreamService>) {
    let mut settings = checkable(dir);
    let mut services = Vec::new();
    for _ in 0..40 {
        if let Ok(name) = hostile(random).parse() {
            let upstream = SocketAddr::from(([127, 1, 0, random.random()], random.random()));
            services.push(HttpService {
                name,
                upstream,
                options: options(random),
            });
        }
    }
    if let Ok(name) = hostile(random).parse() {
        settings.portal = Some((name, "127.0.0.1:3000".parse().unwrap()));
    }
    let include = format!("{}/conf.d/{}/none*", dir.display(), hostile(random));
    settings.include = include.parse().ok();
    let mut streams = Vec::new();
    for _ in 0..random.random_range(0..4) {
        streams.push(StreamService {
            protocol: if random.random() {
                Protocol::Tcp
            } else {
                Protocol::Udp
            },
            port: random.random_range(20_000..21_000),
            upstream: SocketAddr::from(([127, 1, 0, random.random()], random.random())),
            tls: random.random(),
        });
    }
    (settings, services, streams)
}

/// Mostly those that all have.
fn options(random: &mut StdRng) -> HttpOptions {
    let mut number = || random.random_ratio(1, 8).then(|| random.random::<u32>());
    HttpOptions {
        max_body: number(),
        timeout: number(),
        https: random.random_ratio(1, 8),
    }
}

/// What a directive is but for the values that follow the input: names, addresses and numbers.
fn shape(words: &[String], names: &BTreeSet<&str>) -> Vec<String> {
    let word = |word: &String| match word.as_str() {
        name if names.contains(name) => "NAME".to_owned(),
        _ => {
            let mut numbers = false;
            let plain = word.chars().filter_map(|c| {
                let first =
                    c.is_ascii_digit() && !std::mem::replace(&mut numbers, c.is_ascii_digit());
                match c.is_ascii_digit() {
                    true => first.then_some('N'),
                    false => {
                        numbers = false;
                        Some(c)
                    }
                }
            });
            plain.collect()
        }
    };
    words.iter().map(word).collect()
}

/// Every directive that we write.
fn known(dir: &Path) -> BTreeSet<Vec<String>> {
    let mut settings = checkable(dir);
    settings.portal = Some((
        "portal.example.org".parse().unwrap(),
        "127.0.0.1:3000".parse().unwrap(),
    ));
    let plain = http("plain.example.org", "127.1.0.1:80");
    let own = |name: &str, options| HttpService {
        options,
        ..http(name, "127.1.0.2:80")
    };
    let all = HttpOptions {
        https: true,
        max_body: Some(7),
        timeout: Some(7),
    };
    let body = HttpOptions {
        max_body: Some(7),
        ..HttpOptions::default()
    };
    let web = [
        plain,
        own("all.example.org", all),
        own("body.example.org", body),
    ];
    let mut streams = [Protocol::Tcp, Protocol::Udp]
        .map(|kind| stream(kind, 20_000, "127.1.0.3:22"))
        .to_vec();
    streams.push(StreamService {
        tls: true,
        ..stream(Protocol::Tcp, 20_001, "127.1.0.3:22")
    });
    let names = [
        "portal.example.org",
        "plain.example.org",
        "all.example.org",
        "body.example.org",
    ]
    .into();
    let text = render(&settings, &web, &streams).text;
    directives(&text)
        .iter()
        .map(|words| shape(words, &names))
        .collect()
}

/// How many directives one more such service writes at most: one with a server of its own, a stream service.
fn sizes(dir: &Path) -> (usize, usize) {
    let mut settings = checkable(dir);
    settings.portal = Some((
        "portal.example.org".parse().unwrap(),
        "127.0.0.1:3000".parse().unwrap(),
    ));
    let count = |web: &[HttpService], streams: &[StreamService]| {
        directives(&render(&settings, web, streams).text).len()
    };
    let own = HttpService {
        options: HttpOptions {
            https: true,
            max_body: Some(7),
            timeout: Some(7),
        },
        ..http("own.example.org", "127.1.0.2:80")
    };
    let tls = StreamService {
        tls: true,
        ..stream(Protocol::Tcp, 20_001, "127.1.0.3:22")
    };
    let plain = count(&[], &[]);
    (count(&[own], &[]) - plain, count(&[], &[tls]) - plain)
}

/// Cases for one `nginx -t`.
const BATCH: u32 = 25;

#[test]
fn no_string_writes_a_directive_of_its_own() {
    let setting = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let (seed, cases) = (
        setting("SEED").unwrap_or(7),
        setting("CASES").unwrap_or(2_000),
    );
    let mut random = StdRng::seed_from_u64(seed.into());
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (known, (own_size, stream_size)) = (known(dir), sizes(dir));
    let mut settings = checkable(dir);
    settings.portal = Some((
        "portal.example.org".parse().unwrap(),
        "127.0.0.1:3000".parse().unwrap(),
    ));
    let plain = directives(&render(&settings, &[], &[]).text).len();
    assert!(known.len() > 60 && plain > 40, "the lexer sees the file");
    let (mut let_through, mut includes, mut batch) = (0, 0, Vec::new());
    for case in 0..cases {
        let (settings, services, streams) = random_case(&mut random, dir);
        let rendered = render(&settings, &services, &streams);
        let portal = settings.portal.iter().map(|(name, _)| name);
        let names: BTreeSet<&PublicName> = services.iter().map(|s| &s.name).chain(portal).collect();
        let words = names.iter().map(|name| name.as_str()).collect();
        let at = format!("SEED={seed}, case {case}");
        let entries = directives(&rendered.text);
        for directive in &entries {
            let ours = directive[0] == "include" || known.contains(&shape(directive, &words));
            assert!(ours, "{at}: {directive:?}");
        }
        let include = usize::from(settings.include.is_some());
        let written = entries.iter().filter(|words| words[0] == "include").count();
        assert_eq!(written, include, "{at}");
        let own = services
            .iter()
            .filter(|s| s.options != HttpOptions::default())
            .count();
        let most = plain + include + names.len() + own_size * own + stream_size * streams.len();
        assert!(
            entries.len() <= most,
            "{at}: more directives than were asked for"
        );
        let_through += names.len();
        batch.extend(services.iter().cloned());
        if case % BATCH == BATCH - 1 {
            // nginx sees every name, and the settings of each batch's last case.
            let services = std::mem::take(&mut batch);
            let rendered = render(&settings, &services, &streams);
            check(dir, &rendered.text).unwrap_or_else(|said| panic!("{at}: {said}"));
        }
        includes += include;
    }
    assert!(
        let_through > 100 && includes > 10,
        "{let_through}, {includes}"
    );
}
