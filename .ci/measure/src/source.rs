//! The source files of the workspace, parsed.

use std::fmt;
use std::path::{Path, PathBuf};

/// Folders of crates below the workspace, with the crates' names.
const CRATES: [&str; 8] = [
    "cac-core",
    "cac-core/db",
    "cac-core/nginx",
    "cac-core/pve",
    "cac-core/simulator",
    "cac-http",
    "cac-runner",
    "cac-cli",
];

/// Why the source cannot be measured.
#[derive(Debug)]
pub enum Error {
    Read(PathBuf, std::io::Error),
    Parse(PathBuf, syn::Error),
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Parse(path, error) => {
                let line = error.span().start().line;
                write!(f, "cannot parse {}:{line}: {error}", path.display())
            }
        }
    }
}

/// A parsed source file.
pub struct SourceFile {
    /// Folder of its crate below the workspace.
    pub package: &'static str,
    /// Below the workspace.
    pub path: String,
    /// Module path below the crate's root; empty for `lib.rs` and `main.rs`.
    pub module: Vec<String>,
    pub text: String,
    pub syntax: syn::File,
    /// A test, benchmark or example, or part of the test support.
    pub is_test: bool,
}

/// All source files of the workspace.
pub struct Workspace {
    root: PathBuf,
    pub files: Vec<SourceFile>,
}

impl Workspace {
    pub fn read(root: &Path) -> Result<Self, Error> {
        let mut files = Vec::new();
        for package in CRATES {
            for folder in ["src", "tests", "benches", "examples"] {
                let folder = root.join(package).join(folder);
                if folder.is_dir() {
                    read_folder(root, package, &folder, &mut files)?;
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self {
            root: root.to_owned(),
            files,
        })
    }

    /// Files of the product: no tests, benchmarks, examples and test support.
    pub fn product(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| !file.is_test)
    }

    /// Words of a document.
    pub fn words(&self, name: &str) -> Result<usize, Error> {
        let path = self.root.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| Error::Read(path, error))?;
        Ok(text.split_whitespace().count())
    }

    /// Attributes that silence a lint without noticing when it would no longer fire.
    pub fn allows(&self) -> usize {
        let count = |file: &SourceFile| {
            let lines = file.text.lines().map(str::trim_start);
            lines
                .filter(|line| line.starts_with("#[allow(") || line.starts_with("#![allow("))
                .count()
        };
        self.files.iter().map(count).sum()
    }
}

fn read_folder(
    root: &Path,
    package: &'static str,
    folder: &Path,
    files: &mut Vec<SourceFile>,
) -> Result<(), Error> {
    let failed = |error| Error::Read(folder.to_owned(), error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            read_folder(root, package, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(read_file(root, package, &path)?);
        }
    }
    Ok(())
}

fn read_file(root: &Path, package: &'static str, path: &Path) -> Result<SourceFile, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Error::Read(path.to_owned(), error))?;
    let syntax = syn::parse_file(&text).map_err(|error| Error::Parse(path.to_owned(), error))?;
    let below_root = path.strip_prefix(root).unwrap_or(path);
    let below_crate = below_root.strip_prefix(package).unwrap_or(below_root);
    let mut parts: Vec<String> = below_crate
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let folder = parts.remove(0);
    if parts
        .last()
        .is_some_and(|last| matches!(last.as_str(), "lib" | "main" | "mod"))
    {
        parts.pop();
    }
    let is_test = folder != "src"
        || parts
            .iter()
            .any(|part| part == "tests" || part.starts_with("testing"));
    Ok(SourceFile {
        package,
        path: below_root.display().to_string(),
        module: parts,
        text,
        syntax,
        is_test,
    })
}

/// Whether an item is compiled for tests only.
pub fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        let named = |name: &str| {
            attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|ident| ident == name)
        };
        attribute.path().is_ident("test") || (is_cfg && named("test"))
    })
}
