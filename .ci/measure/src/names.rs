//! Names of types: how many there are, and which stand for several things.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use crate::source::{SourceFile, Workspace, is_test_only};

#[derive(Debug)]
pub struct Names {
    pub types: usize,
    /// Such as `Form`; `RouteError` has two.
    pub one_word: usize,
    /// Defined more than once in one crate, with the files.
    pub repeated: BTreeMap<String, Vec<String>>,
    /// Defined in more than one crate: fine for one thing on two layers.
    pub shared: usize,
}

/// Structs, enums, traits and type aliases of the product, also private ones.
pub fn measure(workspace: &Workspace) -> Names {
    let mut all: BTreeMap<String, Vec<&SourceFile>> = BTreeMap::new();
    for file in workspace.product() {
        let mut visitor = Types::default();
        visitor.visit_file(&file.syntax);
        for name in visitor.names {
            all.entry(name).or_default().push(file);
        }
    }
    let types = all.values().map(Vec::len).sum();
    let words = |name: &str| name.chars().filter(char::is_ascii_uppercase).count();
    let one_word = all.keys().filter(|name| words(name) == 1).count();
    let mut repeated = BTreeMap::new();
    let mut shared = 0;
    for (name, files) in &all {
        let mut packages: Vec<&str> = files.iter().map(|file| file.package).collect();
        packages.sort_unstable();
        let twice = packages.windows(2).any(|pair| pair[0] == pair[1]);
        packages.dedup();
        shared += usize::from(packages.len() > 1);
        if twice {
            let paths = files.iter().map(|file| file.path.clone()).collect();
            repeated.insert(name.clone(), paths);
        }
    }
    Names {
        types,
        one_word,
        repeated,
        shared,
    }
}

#[derive(Default)]
struct Types {
    names: Vec<String>,
}

impl<'ast> Visit<'ast> for Types {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test_only(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.names.push(item.ident.to_string());
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.names.push(item.ident.to_string());
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.names.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.names.push(item.ident.to_string());
    }
}
