//! The command line as a way to `/nginx.conf` for strings that try to be more than a value.
//! `CASES=2000 cargo test -p cac-cli --test programs door::` is the long form; `SEED` chooses other strings.

use std::collections::BTreeSet;

use cac_core::testing::nginx::{check, hostile, plain};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::front::Front;
use crate::lab::{good, run, text};

/// Cases between two looks at the file.
const BATCH: u32 = 20;
const CONTAINERS: [&str; 3] = ["one", "two", "three"];

async fn file(front: &Front) -> String {
    let answer = front.portal.get("/nginx.conf", &front.admin).await;
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

/// Words for `cac service add` or `update`, of which many are such strings.
fn words(random: &mut StdRng) -> Vec<String> {
    #[rustfmt::skip]
    const KINDS: [(&str, &[&str]); 4] = [
        ("http", &["--hostname", "--https", "--max-body", "--timeout"]), ("tcp", &["--tls"]), ("udp", &[]),
        ("", &["--hostname", "--tls", "--https", "--max-body", "--timeout", "--port"]),
    ];
    let number = random.random_range(1..70_000).to_string();
    let (kind, options) = *KINDS.choose(random).unwrap();
    let container = (*CONTAINERS.choose(random).unwrap()).to_owned();
    let mut words = match random.random_range(0..4) {
        0 => vec!["add".to_owned(), container, hostile(random)],
        1 => vec![
            "update".to_owned(),
            container,
            random.random_range(1..40).to_string(),
        ],
        _ => vec!["add".to_owned(), container, format!("{number}/{kind}")],
    };
    for option in options {
        let value = match random.random_range(0..6) {
            0 | 1 => continue,
            2 | 3 => hostile(random),
            _ if *option == "--hostname" => format!("n{number}"),
            _ if ["--tls", "--https"].contains(option) => random.random::<bool>().to_string(),
            _ => random.random_range(0..5000).to_string(),
        };
        words.push(format!("{option}={value}"));
    }
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn no_string_given_to_the_command_line_spoils_the_file() {
    let setting = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let (seed, cases) = (
        setting("SEED").unwrap_or(7),
        setting("CASES").unwrap_or(200),
    );
    let mut random = StdRng::seed_from_u64(seed.into());
    let front = Front::new(&[]).await;
    for name in CONTAINERS {
        front.add(name).await;
    }
    let scopes = ["containers:read", "containers:write"];
    let token = front.new_token(&scopes).await;
    let vars = [
        ("CAC_URL", front.portal.url.as_str()),
        ("CAC_TOKEN", &token),
    ];
    // One of everything.
    for line in [
        "add one 3000/http --hostname=own --https=true --max-body=7 --timeout=7",
        "add two 8080/tcp --tls=true",
        "add two 8081/tcp",
        "add three 53/udp",
    ] {
        let words: Vec<&str> = ["service"].into_iter().chain(line.split(' ')).collect();
        good("cac", &words, &vars);
    }
    let ours: BTreeSet<String> = file(&front).await.lines().map(plain).collect();
    assert!(ours.len() > 60, "one of everything");
    let (mut given, mut taken) = (Vec::new(), 0);
    for case in 1..=cases {
        let words = words(&mut random);
        if words.iter().any(|word| word.contains('\0')) {
            continue;
        }
        let words: Vec<&str> = ["service"]
            .into_iter()
            .chain(words.iter().map(String::as_str))
            .collect();
        let output = run("cac", &words, &vars);
        let said = text(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(0..=9)),
            "{words:?}: {said}"
        );
        assert!(!said.contains("panicked"), "{words:?}: {said}");
        taken += u32::from(output.status.success());
        given.push(format!("SEED={seed}, case {case}: {words:?}"));
        if case % BATCH == 0 {
            let text = file(&front).await;
            for line in text.lines() {
                assert!(ours.contains(&plain(line)), "{line:?} after {given:#?}");
            }
            if let Err(words) = check(&text, front.dir.path()) {
                panic!("{words} after {given:#?}");
            }
        }
    }
    assert!(taken > cases / 20, "{taken} of {cases} were taken");
    front.nginx.stop();
}
