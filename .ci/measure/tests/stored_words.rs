//! Words that are stored or published keep their spelling, whatever the code calls the thing.

use std::collections::BTreeSet;
use std::path::Path;

use cac_measure::source::Workspace;
use proc_macro2::{TokenStream, TokenTree};

/// Every string literal of these tokens, without its quotes.
fn literals(tokens: TokenStream, into: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => literals(group.stream(), into),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let text = text.trim_start_matches(['r', '#']).trim_end_matches('#');
                into.insert(text.trim_matches('"').to_owned());
            }
            _ => {}
        }
    }
}

#[test]
fn no_stored_or_published_word_is_spelt_another_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workspace = Workspace::read(&root).expect("the source can be read");
    let mut all = BTreeSet::new();
    for file in workspace.product() {
        literals(file.text.parse().expect("it was parsed before"), &mut all);
    }
    let text = std::fs::read_to_string(root.join("openapi/openapi.json")).expect("it is there");
    let mut section = "";
    let mut missing = Vec::new();
    for line in include_str!("stored_words.txt").lines() {
        match line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            Some(name) => section = name,
            None if line.is_empty() || line.starts_with('#') => {}
            None => {
                let in_sql = format!("'{line}'");
                let found = match section {
                    "operations" => text.contains(&format!("\"operationId\": \"{line}\"")),
                    _ => all.contains(line) || all.iter().any(|one| one.contains(&in_sql)),
                };
                if !found {
                    missing.push(format!("{section}: {line}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "no longer in the source: {missing:?}");
}
