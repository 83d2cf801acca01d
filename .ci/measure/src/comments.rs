//! Lines of code and of comments.

use crate::source::{SourceFile, Workspace};

#[derive(Debug, Default)]
pub struct Count {
    pub files: usize,
    pub code: usize,
    /// Lines that have a `//` comment, alone or after code.
    pub plain: usize,
    pub doc: usize,
    /// Paths of files of more than 500 lines.
    pub long_files: Vec<String>,
}

impl Count {
    /// All lines that are not blank.
    pub fn total(&self) -> usize {
        self.code + self.plain + self.doc
    }
}

/// Counts the product's files. Lines of inline test modules count too: they are few.
pub fn count(workspace: &Workspace) -> Count {
    let mut count = Count::default();
    for file in workspace.product() {
        count.files += 1;
        if file.text.lines().count() > 500 {
            count.long_files.push(file.path.clone());
        }
        count_file(file, &mut count);
    }
    count
}

fn count_file(file: &SourceFile, count: &mut Count) {
    let inside = string_lines(file);
    for (at, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        // A line inside a string of several lines is code, whatever it looks like.
        match inside.contains(&(at + 1)) {
            true => count.code += 1,
            false if line.starts_with("///") || line.starts_with("//!") => count.doc += 1,
            false if line.starts_with("//") => count.plain += 1,
            false => count.code += 1,
        }
    }
}

/// Numbers of lines that begin inside a string literal.
fn string_lines(file: &SourceFile) -> std::collections::HashSet<usize> {
    let mut lines = std::collections::HashSet::new();
    let Ok(tokens) = file.text.parse::<proc_macro2::TokenStream>() else {
        return lines;
    };
    visit(tokens, &mut lines);
    lines
}

fn visit(tokens: proc_macro2::TokenStream, lines: &mut std::collections::HashSet<usize>) {
    for token in tokens {
        match token {
            proc_macro2::TokenTree::Group(group) => visit(group.stream(), lines),
            proc_macro2::TokenTree::Literal(literal) => {
                let span = literal.span();
                // A doc comment is a literal of this kind as well, on one line.
                lines.extend(span.start().line + 1..=span.end().line);
            }
            _ => {}
        }
    }
}
