//! The module graph of a crate: its files, and which file uses an item that another one defines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, UseTree, Visibility, visit::Visit};

/// Path of a module from its crate's root; empty for the root itself.
pub(crate) type ModulePath = Vec<String>;

/// A crate's modules by path. Inline modules belong to the file that holds them; what is compiled for tests only is left out.
#[derive(Default)]
pub(crate) struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Default)]
struct Module {
    /// Paths that the file names, as written: from `crate`, `self`, `super` or a child module.
    named: BTreeSet<Vec<String>>,
    /// What `use` makes available here under another path: name → path as written. Child modules see private ones too.
    reexports: BTreeMap<String, Vec<String>>,
}

impl Crate {
    /// Reads the crate whose root is `lib.rs` in `folder`.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut found = Self::default();
        found.read_file(&folder.join("lib.rs"), folder, Vec::new());
        found
    }

    fn read_file(&mut self, file: &Path, children: &Path, path: ModulePath) {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for child in self.add(path.clone(), &text) {
            let (folder, mut below) = (children.join(&child), path.clone());
            below.push(child.clone());
            let candidates = [children.join(format!("{child}.rs")), folder.join("mod.rs")];
            let file: Option<&PathBuf> = candidates.iter().find(|file| file.exists());
            let file = file.unwrap_or_else(|| panic!("{child} of {path:?} has no file"));
            self.read_file(file, &folder, below);
        }
    }

    /// Adds a module by its text and returns its child modules that are files of their own.
    pub(crate) fn add(&mut self, path: ModulePath, text: &str) -> Vec<String> {
        let syntax = syn::parse_file(text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let mut scan = Scan::default();
        scan.visit_file(&syntax);
        let children = scan.children;
        self.modules.insert(path, scan.module);
        children
    }

    /// Each use of an item of another module: (module, where the item is defined).
    pub(crate) fn uses(&self) -> BTreeSet<(ModulePath, ModulePath)> {
        let named = |(path, module): (&ModulePath, &Module)| {
            let targets: Vec<_> = module
                .named
                .iter()
                .filter_map(|named| self.resolve(path, named, 0))
                .filter(|target| target != path)
                .map(|target| (path.clone(), target))
                .collect();
            targets
        };
        self.modules.iter().flat_map(named).collect()
    }

    /// The module that defines what `written` names in the module `from`; `None`: nothing of this crate.
    fn resolve(&self, from: &ModulePath, written: &[String], depth: usize) -> Option<ModulePath> {
        let (mut place, mut rest) = match written.first()?.as_str() {
            "crate" => (Vec::new(), &written[1..]),
            "self" => (from.clone(), &written[1..]),
            _ => (from.clone(), written),
        };
        while rest.first().is_some_and(|part| part == "super") {
            place.pop()?;
            rest = &rest[1..];
        }
        let anchored = rest.len() < written.len();
        let before = place.len();
        while let Some(part) = rest.first() {
            let mut child = place.clone();
            child.push(part.clone());
            if !self.modules.contains_key(&child) {
                break;
            }
            (place, rest) = (child, &rest[1..]);
        }
        if !anchored && place.len() == before {
            return None;
        }
        let moved = rest.first().and_then(|item| {
            let target = self.modules[&place].reexports.get(item)?;
            // A re-export may lead to another one; a ring of them does not compile.
            (depth < 8).then(|| self.resolve(&place, target, depth + 1))?
        });
        Some(moved.unwrap_or(place))
    }

    /// Circles among modules, looked for below each module in turn: among its children, each with all below it, and its own file.
    /// A circle is a list of modules that all reach each other.
    pub(crate) fn circles(&self) -> Vec<String> {
        let mut edges: BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        let mut examples: BTreeMap<(String, String), String> = BTreeMap::new();
        for (from, to) in self.uses() {
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let below = |path: &ModulePath| path.get(shared).cloned().unwrap_or("(itself)".into());
            let names = (below(&from), below(&to));
            let graph = edges.entry(from[..shared].to_vec()).or_default();
            graph
                .entry(names.0.clone())
                .or_default()
                .insert(names.1.clone());
            let example = format!("{} uses {}", from.join("::"), to.join("::"));
            examples.entry(names).or_insert(example);
        }
        let in_module = |(module, graph): (&ModulePath, &BTreeMap<String, BTreeSet<String>>)| {
            let circles = strongly_connected(graph);
            let told = circles.into_iter().map(|members| {
                let inside = examples.iter().filter(|((from, to), _)| {
                    members.contains(from)
                        && members.contains(to)
                        && graph.get(from).is_some_and(|next| next.contains(to))
                });
                let uses: Vec<_> = inside.map(|(_, example)| example.clone()).collect();
                format!(
                    "in crate::{}: {members:?}\n    {}",
                    module.join("::"),
                    uses.join("\n    ")
                )
            });
            told.collect::<Vec<_>>()
        };
        edges.iter().flat_map(in_module).collect()
    }
}

/// Groups of two or more nodes that all reach each other.
fn strongly_connected(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reach = |start: &String| {
        let (mut open, mut reached) = (vec![start], BTreeSet::new());
        while let Some(node) = open.pop() {
            for next in graph.get(node).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|node| (node, reach(node))).collect();
    let mut groups = BTreeSet::new();
    for (node, others) in &reached {
        let mutual = |other: &&String| reached.get(other).is_some_and(|back| back.contains(*node));
        let group: BTreeSet<String> = others.iter().filter(mutual).cloned().collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    groups.into_iter().collect()
}

/// Collects from one file.
#[derive(Default)]
struct Scan {
    module: Module,
    children: Vec<String>,
    /// Inline modules around the current place: `super` climbs these first.
    inline: usize,
}

impl Scan {
    /// Takes down a path, unless it stays inside this file.
    fn name(&mut self, path: &[String]) {
        let supers = path.iter().take_while(|part| *part == "super").count();
        if path[0] == "crate" || self.inline == 0 {
            self.module.named.insert(path.to_vec());
        } else if supers >= self.inline && path.len() > self.inline {
            self.module.named.insert(path[self.inline..].to_vec());
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.finish(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.finish(&mut path);
                    self.tokens(group.stream());
                }
                _ => self.finish(&mut path),
            }
        }
        self.finish(&mut path);
    }

    fn finish(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.name(&path);
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = match &attribute.meta {
            syn::Meta::List(list) => list.tokens.to_string(),
            _ => String::new(),
        };
        attribute.path().is_ident("cfg") && tokens == "test"
    })
}

/// The paths of a `use`, each with the name that it brings.
fn leaves(tree: &UseTree, before: &[String]) -> Vec<(String, Vec<String>)> {
    let with = |name: String| [before, &[name]].concat();
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &with(path.ident.to_string())),
        UseTree::Name(name) if name.ident == "self" => {
            vec![(before.last().cloned().unwrap_or_default(), before.to_vec())]
        }
        UseTree::Name(name) => vec![(name.ident.to_string(), with(name.ident.to_string()))],
        UseTree::Rename(new) => vec![(new.rename.to_string(), with(new.ident.to_string()))],
        UseTree::Glob(_) => vec![("*".into(), with("*".into()))],
        UseTree::Group(group) => {
            let each = group.items.iter();
            each.flat_map(|tree| leaves(tree, before)).collect()
        }
    }
}

impl<'a> Visit<'a> for Scan {
    fn visit_item(&mut self, item: &'a Item) {
        let attributes = match item {
            Item::Mod(module) => &module.attrs,
            Item::Fn(function) => &function.attrs,
            Item::Impl(block) => &block.attrs,
            Item::Use(import) => &import.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        if module.content.is_none() {
            self.children.push(module.ident.to_string());
            return;
        }
        self.inline += 1;
        syn::visit::visit_item_mod(self, module);
        self.inline -= 1;
    }

    fn visit_item_use(&mut self, import: &'a syn::ItemUse) {
        for (name, path) in leaves(&import.tree, &[]) {
            let outward = ["crate", "super"].contains(&path[0].as_str());
            if matches!(import.vis, Visibility::Inherited) || outward {
                self.name(&path);
            }
            if self.inline == 0 {
                self.module.reexports.insert(name, path);
            }
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if parts.len() > 1 {
            self.name(&parts);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'a syn::Macro) {
        self.tokens(invoked.tokens.clone());
    }
}
