//! What the README has people type.

use cac_core::testing;
use url::Url;

use crate::lab::{good, run, text};

fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    std::fs::read_to_string(path).unwrap()
}

/// The commands of ours in a text: each word after `cac` that can be one.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let mut all = Vec::new();
    for line in text.lines() {
        let mut begins: Vec<&str> = line.split("`cac ").skip(1).collect();
        begins.extend(line.strip_prefix("cac "));
        begins.extend(line.split("sudo -u cac-http cac ").skip(1));
        begins.extend(line.strip_prefix("# cac "));
        for begin in begins {
            let whole = begin.split('`').next().unwrap_or(begin);
            let words: Vec<&str> = whole.split_whitespace().take_while(word).take(2).collect();
            if !words.is_empty() {
                all.push(words);
            }
        }
    }
    all
}

#[test]
fn its_commands_exist() {
    let settings = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/container-creator");
    let all = readme() + &std::fs::read_to_string(settings).unwrap();
    let all = commands(&all);
    assert!(all.len() > 30, "{all:?}");
    for mut words in all {
        words.push("--help");
        let output = run("cac", &words, &[]);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            text(&output.stderr)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_lines_for_mariadb_are_enough() {
    let readme = readme();
    let (_, after) = readme.split_once("```sql\n").unwrap();
    let (sql, _) = after.split_once("```").unwrap();
    assert!(sql.contains("CREATE DATABASE") && sql.contains("GRANT"));
    let (number, server) = (rand::random::<u32>(), testing::mariadb().await);
    let (database, user) = (format!("readme_{number:x}"), format!("manager_{number:x}"));
    // The server of the tests looks no names up.
    let sql = sql
        .replace("opensource_containers", &database)
        .replace("container_manager", &user)
        .replace("localhost", "127.0.0.1");
    server.script(&sql).await;
    let port = Url::parse(&server.url).unwrap().port().unwrap().to_string();
    let vars = [
        ("MYSQL_HOST", "127.0.0.1"),
        ("MYSQL_PORT", &port),
        ("MYSQL_USER", &user),
        ("MYSQL_PASSWORD", "secure_password_here"),
        ("MYSQL_DATABASE", &database),
    ];
    good("cac", &["migrate", "up"], &vars);
    let status = good("cac", &["migrate", "status"], &vars);
    assert!(status.contains("0001_original"), "{status}");
    server
        .script(&format!(
            "DROP DATABASE {database}; DROP USER '{user}'@'127.0.0.1'"
        ))
        .await;
}
