//! Which top-level modules of a crate import which, and where that goes round in circles.
//!
//! An import is every path that begins with `crate`, `self` or `super` and leads out of its own top-level module, in `use`, in types, in
//! expressions and inside macros. A name that the crate's root re-exports leads to where it comes from; a name that the root defines itself
//! (`crate::Core`) leads to [`ROOT`], and the root imports what its own items name. A parent and its children are one module here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::source::{Error, SourceFile, Workspace, is_test_only};

/// The crate's root as a module: what `lib.rs` defines.
pub const ROOT: &str = "lib";

/// Imports between the top-level modules of a crate.
#[derive(Debug, Clone)]
pub struct Graph {
    imports: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Graph {
    pub fn of(workspace: &Workspace, package: &str) -> Result<Self, Error> {
        let mut files: Vec<&SourceFile> = workspace
            .product()
            .filter(|file| file.package == package)
            .collect();
        files.retain(|file| !file.path.ends_with("main.rs"));
        let mut modules: BTreeSet<String> = files
            .iter()
            .filter_map(|file| file.module.first().cloned())
            .collect();
        modules.insert(ROOT.to_owned());
        let homes = homes(&files);
        let mut imports: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = modules
            .iter()
            .map(|one| (one.clone(), BTreeMap::new()))
            .collect();
        for file in files {
            let from = file.module.first().map_or(ROOT, String::as_str).to_owned();
            let mut visitor = Paths {
                module: file.module.clone(),
                found: BTreeSet::new(),
            };
            visitor.visit_file(&file.syntax);
            for path in visitor.found {
                let Some(to) = target(&path, &modules, &homes) else {
                    continue;
                };
                if to != from {
                    let places = imports.entry(from.clone()).or_default();
                    places.entry(to).or_default().insert(file.path.clone());
                }
            }
        }
        Ok(Self { imports })
    }

    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.imports.keys().map(String::as_str)
    }

    /// What a module imports, with the files that do so.
    pub fn imports_of(&self, module: &str) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        let all = self.imports.get(module).into_iter().flatten();
        all.map(|(to, files)| (to.as_str(), files))
    }

    /// The same without one module.
    #[must_use]
    pub fn without(&self, module: &str) -> Self {
        let mut imports = self.imports.clone();
        imports.remove(module);
        for targets in imports.values_mut() {
            targets.remove(module);
        }
        Self { imports }
    }

    /// Groups of modules that reach each other, the largest first.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<&str>> {
        let reach: BTreeMap<&str, BTreeSet<&str>> = self
            .modules()
            .map(|module| (module, self.reachable(module)))
            .collect();
        let mut done = BTreeSet::new();
        let mut cycles = Vec::new();
        for module in self.modules() {
            let mutual =
                |other: &&str| reach[*other].contains(module) && reach[module].contains(other);
            let cycle: Vec<&str> = self.modules().filter(mutual).collect();
            if cycle.len() > 1 && done.insert(cycle[0]) {
                cycles.push(cycle);
            }
        }
        cycles.sort_by_key(|cycle| std::cmp::Reverse(cycle.len()));
        cycles
    }

    /// Every module that this one imports, directly or through others.
    fn reachable<'a>(&'a self, module: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![module];
        while let Some(next) = open.pop() {
            for (to, _) in self.imports_of(next) {
                if reached.insert(to) {
                    open.push(to);
                }
            }
        }
        reached
    }
}

/// Where names come from that the root re-exports or macros define, by name.
fn homes(files: &[&SourceFile]) -> HashMap<String, String> {
    let mut homes = HashMap::new();
    for file in files {
        for item in &file.syntax.items {
            match item {
                syn::Item::Use(item) if file.module.is_empty() => {
                    for (name, path) in leaves(&item.tree, &[]) {
                        let path = path.iter().skip_while(|part| is_relative(part));
                        if let Some(module) = path.clone().next() {
                            homes.insert(name, module.clone());
                        }
                    }
                }
                syn::Item::Macro(item) => {
                    if let (Some(name), Some(module)) = (&item.ident, file.module.first()) {
                        homes.insert(name.to_string(), module.clone());
                    }
                }
                _ => {}
            }
        }
    }
    homes
}

fn is_relative(part: &str) -> bool {
    matches!(part, "crate" | "self" | "super")
}

/// The names that a `use` brings in, with their whole paths.
fn leaves(tree: &syn::UseTree, before: &[String]) -> Vec<(String, Vec<String>)> {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, &with(&path.ident)),
        syn::UseTree::Name(name) if name.ident == "self" => {
            let last = before.last().cloned().unwrap_or_default();
            vec![(last, before.to_vec())]
        }
        syn::UseTree::Name(name) => vec![(name.ident.to_string(), with(&name.ident))],
        syn::UseTree::Rename(rename) => vec![(rename.rename.to_string(), with(&rename.ident))],
        syn::UseTree::Glob(_) => vec![(String::new(), before.to_vec())],
        syn::UseTree::Group(group) => group
            .items
            .iter()
            .flat_map(|tree| leaves(tree, before))
            .collect(),
    }
}

/// The top-level module that an absolute path leads to; `None` for the root itself.
fn target(
    path: &[String],
    modules: &BTreeSet<String>,
    homes: &HashMap<String, String>,
) -> Option<String> {
    let first = path.first()?;
    if modules.contains(first) {
        return Some(first.clone());
    }
    let home = homes.get(first).filter(|home| modules.contains(*home));
    Some(home.cloned().unwrap_or_else(|| ROOT.to_owned()))
}

/// Collects the paths of a file that name something of this crate, from the crate's root on.
struct Paths {
    module: Vec<String>,
    found: BTreeSet<Vec<String>>,
}

impl Paths {
    fn add(&mut self, path: &[String]) {
        let mut parts = path.iter().peekable();
        let mut at = match parts.peek().map(|part| part.as_str()) {
            Some("crate") => {
                parts.next();
                Vec::new()
            }
            Some("self" | "super") => self.module.clone(),
            // In the root every module is in scope by its bare name.
            Some(_) if self.module.is_empty() => Vec::new(),
            _ => return,
        };
        while let Some(part) = parts.next_if(|part| is_relative(part)) {
            if part == "super" {
                at.pop();
            }
        }
        at.extend(parts.cloned());
        self.found.insert(at);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_test_only(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test_only(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // A re-export of the root is where the name comes from, not an import of it.
        let re_exported = self.module.is_empty() && matches!(item.vis, syn::Visibility::Public(_));
        if !re_exported && !is_test_only(&item.attrs) {
            for (_, path) in leaves(&item.tree, &[]) {
                self.add(&path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        // A bare name is a local one, or was brought in by a `use`.
        if parts.len() > 1 {
            self.add(&parts);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let mut path = Vec::new();
        scan(item.tokens.clone(), &mut path, self);
        visit::visit_macro(self, item);
    }
}

/// Finds `crate::a::b` and `super::a` in the tokens of a macro, which are no syntax yet.
fn scan(tokens: TokenStream, path: &mut Vec<String>, paths: &mut Paths) {
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                if colons == 2 && !path.is_empty() {
                    path.push(name);
                } else {
                    finish(path, paths);
                    if is_relative(&name) {
                        path.push(name);
                    }
                }
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Group(group) => {
                finish(path, paths);
                colons = 0;
                scan(group.stream(), path, paths);
                finish(path, paths);
            }
            _ => {
                finish(path, paths);
                colons = 0;
            }
        }
    }
    finish(path, paths);
}

fn finish(path: &mut Vec<String>, paths: &mut Paths) {
    if path.len() > 1 {
        paths.add(path);
    }
    path.clear();
}
