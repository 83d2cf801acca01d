//! The command line as a whole: which commands and options there are, and what their help says.

use std::path::Path;

use crate::lab::good;

/// The help of a command and of everything below it.
fn tree(words: &[&str], text: &mut String) {
    let help = good("cac", &[words, &["--help"]].concat(), &[]);
    text.push_str(&format!(
        "$ cac {}\n{help}\n",
        [words, &["--help"]].concat().join(" ")
    ));
    let commands = help
        .split_once("\nCommands:\n")
        .map_or("", |(_, rest)| rest);
    let lines = commands.lines().take_while(|line| !line.trim().is_empty());
    // What goes on in the next line is indented further.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split_once(' '));
    for (name, _) in names.filter(|(name, _)| !name.is_empty() && *name != "help") {
        tree(&[words, &[name]].concat(), text);
    }
}

/// Scripts name commands and options; whatever goes from here breaks some of them.
#[test]
fn the_help_is_as_it_was_written_down() {
    let mut text = String::new();
    tree(&[], &mut text);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).expect("UPDATE_GOLDEN=1 makes it");
    assert!(
        text == golden,
        "look at the change, then run with UPDATE_GOLDEN=1"
    );
}
