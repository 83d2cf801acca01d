//! Public items of `cac-core`, and which of them nothing else uses.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::source::{Workspace, is_test_only};

#[derive(Debug)]
pub struct Public {
    pub items: usize,
    /// Not named in any other crate's product code.
    pub unused: Vec<String>,
    /// Not named in any test, benchmark or example either.
    pub dead: Vec<String>,
}

/// An item counts as used where its bare name occurs: names that several items have hide each other.
pub fn measure(workspace: &Workspace) -> Public {
    let (mut product, mut tests) = (BTreeSet::new(), BTreeSet::new());
    let mut items = BTreeSet::new();
    for file in &workspace.files {
        let in_core = file.package == "cac-core" && !file.is_test;
        if in_core {
            let mut visitor = Items::default();
            visitor.visit_file(&file.syntax);
            let named = visitor.names.into_iter();
            items.extend(named.map(|name| (name, file.path.clone())));
            continue;
        }
        let into = if file.is_test {
            &mut tests
        } else {
            &mut product
        };
        if let Ok(tokens) = file.text.parse() {
            identifiers(tokens, into);
        }
    }
    let is_in = |set: &BTreeSet<String>, name: &String| set.contains(name);
    let text = |(name, path): &(String, String)| format!("{path} {name}");
    let unused = items.iter().filter(|(name, _)| !is_in(&product, name));
    let dead = unused.clone().filter(|(name, _)| !is_in(&tests, name));
    Public {
        items: items.len(),
        unused: unused.map(text).collect(),
        dead: dead.map(text).collect(),
    }
}

fn identifiers(tokens: TokenStream, into: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => identifiers(group.stream(), into),
            TokenTree::Ident(ident) => drop(into.insert(ident.to_string())),
            _ => {}
        }
    }
}

#[derive(Default)]
struct Items {
    names: Vec<String>,
}

impl Items {
    fn add(&mut self, visibility: &syn::Visibility, name: &syn::Ident) {
        if matches!(visibility, syn::Visibility::Public(_)) {
            self.names.push(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for Items {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test_only(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.vis, &item.sig.ident);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.vis, &item.sig.ident);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add(&item.vis, &item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add(&item.vis, &item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.add(&item.vis, &item.ident);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add(&item.vis, &item.ident);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.add(&item.vis, &item.ident);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.add(&item.vis, &item.ident);
    }
}
