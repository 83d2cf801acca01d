//! Prints a table of what can be measured about the source of this workspace: its size, its functions, its names, the modules of
//! `cac-core` that import each other. `cargo run --manifest-path .ci/measure/Cargo.toml` runs it on the
//! working tree, `-- FOLDER` on another one.
//!
//! It counts and judges nothing. What must hold is a test of its own (`tests/`).

use std::path::PathBuf;
use std::process::ExitCode;

use cac_measure::{comments, functions, imports, names, public, source};

fn main() -> ExitCode {
    let root = std::env::args_os().nth(1).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.."),
        PathBuf::from,
    );
    match report(&root) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(root: &std::path::Path) -> Result<String, source::Error> {
    let workspace = source::Workspace::read(root)?;
    let mut table = String::new();
    let mut row = |what: &str, value: String| table.push_str(&format!("{what:<58} {value}\n"));

    let comments = comments::count(&workspace);
    row("files of the product", comments.files.to_string());
    row(
        "lines of code, without blank lines",
        comments.code.to_string(),
    );
    row(
        "lines with a // comment",
        share(comments.plain, comments.total()),
    );
    row(
        "lines with a /// or //! comment",
        share(comments.doc, comments.total()),
    );
    row(
        "files over 500 lines",
        comments.long_files.len().to_string(),
    );

    let functions = functions::measure(&workspace);
    let lines = |share: f64| functions::quantile(&functions, share);
    row(
        "lines of a function: median, p90, p99, longest",
        format!(
            "{} {} {} {}",
            lines(0.5),
            lines(0.9),
            lines(0.99),
            lines(1.0)
        ),
    );
    let count = |keep: &dyn Fn(&functions::Function) -> bool| {
        functions
            .iter()
            .filter(|function| keep(function))
            .count()
            .to_string()
    };
    row("functions over 25 lines", count(&|one| one.lines > 25));
    row("functions over 60 lines", count(&|one| one.lines > 60));
    row(
        "functions with more than five parameters",
        count(&|one| one.parameters > 5),
    );
    row(
        "functions with a tuple as a parameter",
        count(&|one| one.tuples > 0),
    );
    row(
        "functions nested more than four deep",
        count(&|one| one.nesting > 4),
    );

    let names = names::measure(&workspace);
    row("types", names.types.to_string());
    row("type names of one word", names.one_word.to_string());
    row(
        "type names defined more than once in one crate",
        names.repeated.len().to_string(),
    );
    row(
        "type names defined in several crates",
        names.shared.to_string(),
    );

    let public = public::measure(&workspace);
    row("public items of cac-core", public.items.to_string());
    row(
        "… that no other crate uses",
        public.unused.len().to_string(),
    );
    row(
        "… that no test or example uses either",
        public.dead.len().to_string(),
    );

    let graph = imports::Graph::of(&workspace, "cac-core")?;
    let cycles = |graph: &imports::Graph| {
        let cycles = graph.cycles();
        let sizes: Vec<String> = cycles.iter().map(|one| one.len().to_string()).collect();
        let all: usize = cycles.iter().map(Vec::len).sum();
        match sizes.is_empty() {
            true => "0".to_owned(),
            false => format!("{all} (cycles of {})", sizes.join(", ")),
        }
    };
    row(
        "top-level modules of cac-core",
        graph.modules().count().to_string(),
    );
    row("… in cycles, counting Core and re-exports", cycles(&graph));
    row(
        "… in cycles, without Core",
        cycles(&graph.without(imports::ROOT)),
    );
    row(
        "words of README.md",
        workspace.words("README.md")?.to_string(),
    );
    row("attributes #[allow(…)]", workspace.allows().to_string());

    if std::env::args().any(|arg| arg == "--list") {
        for function in functions
            .iter()
            .filter(|one| one.lines > 60 || one.tuples > 0)
        {
            row(
                &format!("  {}:{}", function.file, function.line),
                format!("{} ({} lines)", function.name, function.lines),
            );
        }
        for (name, files) in &names.repeated {
            row(&format!("  {name}"), files.join(" "));
        }
        for item in &public.dead {
            row(&format!("  unused: {item}"), String::new());
        }
        for module in graph.modules() {
            let imports: Vec<&str> = graph.imports_of(module).map(|(to, _)| to).collect();
            row(&format!("  {module} imports"), imports.join(" "));
        }
        for cycle in graph.cycles() {
            row("  cycle", cycle.join(" "));
        }
    }
    Ok(table)
}

fn share(part: usize, whole: usize) -> String {
    let permille = part * 1000 / whole.max(1);
    format!("{part} ({}.{} %)", permille / 10, permille % 10)
}
