//! Attacks on the file that nginx reads: strings that try to be more than a value, and what a line of it is without its values.

use std::path::Path;
use std::process::Command;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::nginx::find_nginx;

/// A string that tries to leave its place, now and then a good one.
pub fn hostile(random: &mut StdRng) -> String {
    #[rustfmt::skip]
    const PARTS: [&str; 40] = [
        "a", "web", "cac.localhost", ".", "-", ";", "{", "}", "\n", "\r\n", " ", "\t", "\"", "'", "\\", "$host", "#", "*", "..", "é",
        "\u{2028}", "return 200 x;", "include /etc/passwd;", "default", "127.77.1.9", ":80", "8080", "0", "-1", "70000", "99999999999999999999",
        "true", "http", "tcp", "udp", "~^", "_", "A", "server { listen 9; }", "{\"kind\":\"http\"}",
    ];
    let mut text = String::new();
    for _ in 0..random.random_range(1..5) {
        text.push_str(PARTS.choose(random).expect("there are some"));
    }
    text
}

/// A line of the file without the values that may stand there: a public name, an address, a number.
pub fn plain(line: &str) -> String {
    let name = |word: &str| {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        word.contains('.') && word.chars().all(label)
    };
    let number = |c: char| c.is_ascii_digit();
    let words = line.trim().split(' ').map(|word| {
        let (bare, end) = match word.strip_suffix(';') {
            Some(bare) => (bare, ";"),
            None => (word, ""),
        };
        let address = bare
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let what = match bare {
            _ if address.parse::<std::net::SocketAddr>().is_ok() => "ADDRESS".to_owned(),
            _ if name(bare) => "NAME".to_owned(),
            _ if bare.starts_with(number)
                && bare
                    .trim_end_matches(['s', 'm', 'k', 'g'])
                    .chars()
                    .all(number) =>
            {
                "NUMBER".to_owned()
            }
            other => other.to_owned(),
        };
        what + end
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `nginx -t` of a file: its words where it refuses.
pub fn check(text: &str, dir: &Path) -> Result<(), String> {
    let file = dir.join("checked.conf");
    std::fs::write(&file, text).expect("a folder of the test's");
    let mut nginx = Command::new(find_nginx().expect("nginx is installed").binary);
    nginx.args(["-t", "-q", "-e", "stderr", "-c"]).arg(file);
    let output = nginx.output().expect("nginx runs");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
