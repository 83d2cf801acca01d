//! How long functions are, and what they take.

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::source::{SourceFile, Workspace, is_test_only};

#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub file: String,
    pub line: usize,
    /// Without blank lines and comments before it.
    pub lines: usize,
    /// Without `self`.
    pub parameters: usize,
    /// Parameters that are tuples, or references to one.
    pub tuples: usize,
    /// How deep blocks of control flow lie in each other.
    pub nesting: usize,
}

/// Every function and method of the product that has a body.
pub fn measure(workspace: &Workspace) -> Vec<Function> {
    let mut all = Vec::new();
    for file in workspace.product() {
        let mut visitor = Functions {
            file,
            all: &mut all,
        };
        visitor.visit_file(&file.syntax);
    }
    all.sort_by_key(|function| std::cmp::Reverse(function.lines));
    all
}

/// The number of lines that this share of all functions does not exceed.
pub fn quantile(functions: &[Function], share: f64) -> usize {
    let mut lines: Vec<usize> = functions.iter().map(|function| function.lines).collect();
    lines.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index of a short list, from a share between 0 and 1"
    )]
    let at = ((lines.len().saturating_sub(1)) as f64 * share).round() as usize;
    lines.get(at).copied().unwrap_or_default()
}

struct Functions<'a> {
    file: &'a SourceFile,
    all: &'a mut Vec<Function>,
}

impl Functions<'_> {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (first, last) = (signature.span().start().line, block.span().end().line);
        let body = self
            .file
            .text
            .lines()
            .skip(first - 1)
            .take(last + 1 - first);
        let parameters: Vec<&syn::Type> = signature
            .inputs
            .iter()
            .filter_map(|input| match input {
                syn::FnArg::Typed(typed) => Some(&*typed.ty),
                syn::FnArg::Receiver(_) => None,
            })
            .collect();
        let mut nesting = Nesting::default();
        nesting.visit_block(block);
        self.all.push(Function {
            name: signature.ident.to_string(),
            file: self.file.path.clone(),
            line: first,
            lines: body.filter(|line| !line.trim().is_empty()).count(),
            tuples: parameters.iter().filter(|one| is_tuple(one)).count(),
            parameters: parameters.len(),
            nesting: nesting.deepest,
        });
    }
}

fn is_tuple(kind: &syn::Type) -> bool {
    match kind {
        syn::Type::Tuple(tuple) => !tuple.elems.is_empty(),
        syn::Type::Reference(reference) => is_tuple(&reference.elem),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test_only(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test_only(&item.attrs) {
            self.add(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[derive(Default)]
struct Nesting {
    now: usize,
    deepest: usize,
}

impl<'ast> Visit<'ast> for Nesting {
    fn visit_expr(&mut self, expression: &'ast syn::Expr) {
        let deeper = matches!(
            expression,
            syn::Expr::If(_)
                | syn::Expr::Match(_)
                | syn::Expr::ForLoop(_)
                | syn::Expr::While(_)
                | syn::Expr::Loop(_)
        );
        self.now += usize::from(deeper);
        self.deepest = self.deepest.max(self.now);
        visit::visit_expr(self, expression);
        self.now -= usize::from(deeper);
    }

    // `else if` is one more case, not one more level.
    fn visit_expr_if(&mut self, expression: &'ast syn::ExprIf) {
        self.visit_expr(&expression.cond);
        self.visit_block(&expression.then_branch);
        match expression.else_branch.as_ref().map(|(_, other)| &**other) {
            Some(syn::Expr::If(next)) => self.visit_expr_if(next),
            Some(other) => self.visit_expr(other),
            None => {}
        }
    }
}
