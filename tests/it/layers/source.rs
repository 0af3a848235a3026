//! What the files of a crate import from each other: read from their text, with paths resolved to the file that holds
//! what they name, through re-exports and renamings. What only tests see is left out.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, tokens};

/// A module by the names that lead to it. The crate's root has none.
pub(super) type Module = Vec<String>;

/// One file of the crate.
#[derive(Debug, Default)]
struct File {
    /// The modules that it declares.
    children: BTreeSet<String>,
    /// What it imports, by the names that it has here.
    names: BTreeMap<String, Named>,
    /// The names that it uses.
    used: BTreeSet<String>,
    /// Every path that it uses, each with the inline modules around it.
    paths: Vec<(usize, Vec<String>)>,
}

#[derive(Debug)]
struct Named {
    depth: usize,
    path: Vec<String>,
    is_public: bool,
}

/// The files of a crate that are not for tests alone.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<Module, File>);

impl Sources {
    /// Follows the declarations of modules, from the crate's root and from its program. `read` returns the text of the
    /// file at a path such as `people/account.rs`.
    pub(super) fn load(read: impl Fn(&str) -> Option<String>) -> Self {
        let mut sources = Self::default();
        let root = File::parse(&read("lib.rs").expect("a library has a root"));
        let mut waiting: Vec<Module> = root.children.iter().map(|child| vec![child.clone()]).collect();
        sources.0.insert(Module::new(), root);
        if let Some(program) = read("main.rs") {
            sources.0.insert(vec!["main".to_owned()], File::parse(&program));
        }
        while let Some(module) = waiting.pop() {
            let path = module.join("/") + ".rs";
            let file = File::parse(&read(&path).unwrap_or_else(|| panic!("{path} is declared and not there")));
            waiting.extend(file.children.iter().map(|child| below(&module, [child.clone()])));
            sources.0.insert(module, file);
        }
        sources
    }

    /// Every file but the crate's root.
    pub(super) fn modules(&self) -> impl Iterator<Item = &Module> {
        self.0.keys().filter(|module| !module.is_empty())
    }

    /// The files that a file takes something from. What it only passes on it does not take.
    pub(super) fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let file = &self.0[module];
        let own = file.names.iter().filter(|(name, named)| !named.is_public || file.used.contains(*name));
        let imported = own.map(|(_, named)| (named.depth, &named.path));
        let used = file.paths.iter().map(|(depth, path)| (*depth, path));
        let found = imported.chain(used).filter_map(|(depth, path)| self.holder(module, depth, path));
        found.filter(|holder| holder != module && !holder.is_empty()).collect()
    }

    /// The file that holds what a path names. None for what is not of this crate.
    fn holder(&self, from: &Module, depth: usize, path: &[String]) -> Option<Module> {
        let mut absolute = self.absolute(from, depth, path)?;
        // A name that is passed on leads elsewhere, at most as often as there are files on the way.
        for _ in 0..16 {
            let (module, rest) = self.split(&absolute);
            let Some(first) = rest.first() else { return Some(module) };
            let Some(named) = self.0[&module].names.get(first) else { return Some(module) };
            let Some(onward) = self.absolute(&module, named.depth, &named.path) else { return Some(module) };
            let onward = below(&onward, rest[1..].iter().cloned());
            if onward == absolute {
                return Some(module);
            }
            absolute = onward;
        }
        panic!("{} leads nowhere", path.join("::"));
    }

    /// A path from the crate's root on.
    fn absolute(&self, from: &Module, depth: usize, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let file = &self.0[from];
        match first.as_str() {
            "crate" | "hearth" => Some(rest.to_vec()),
            "self" => Some(below(from, rest.iter().cloned())),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let kept = from.len().checked_sub(ups.saturating_sub(depth))?;
                Some(below(&from[..kept], path[ups..].iter().cloned()))
            }
            name if file.children.contains(name) => Some(below(from, path.iter().cloned())),
            name => {
                let named = file.names.get(name).filter(|named| named.path != path)?;
                Some(below(&self.absolute(from, named.depth, &named.path)?, rest.iter().cloned()))
            }
        }
    }

    /// The longest beginning of a path that is a file, and the rest.
    fn split(&self, absolute: &[String]) -> (Module, Vec<String>) {
        let lengths = (0..=absolute.len()).rev();
        let length = lengths.into_iter().find(|length| self.0.contains_key(&absolute[..*length])).unwrap_or(0);
        (absolute[..length].to_vec(), absolute[length..].to_vec())
    }
}

fn below(module: &[String], rest: impl IntoIterator<Item = String>) -> Module {
    module.iter().cloned().chain(rest).collect()
}

/// Loops among the files, each as the way around it. A file is part of one of them at most.
pub(super) fn loops(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let mut found: Vec<Vec<Module>> = Vec::new();
    for start in imports.keys() {
        if found.iter().any(|way| way.contains(start)) {
            continue;
        }
        // The shortest way back to where it began.
        let mut before: BTreeMap<&Module, &Module> = BTreeMap::new();
        let mut waiting = std::collections::VecDeque::from([start]);
        while let Some(module) = waiting.pop_front() {
            for next in imports.get(module).into_iter().flatten() {
                if !before.contains_key(next) {
                    before.insert(next, module);
                    waiting.push_back(next);
                }
            }
        }
        if let Some(mut at) = before.get(start).copied() {
            let mut way = vec![start.clone()];
            while at != start {
                way.push(at.clone());
                at = before[at];
            }
            way.push(start.clone());
            way.reverse();
            found.push(way);
        }
    }
    found
}

impl File {
    fn parse(text: &str) -> Self {
        let mut reader = Reader { tokens: tokens(text), at: 0, file: Self::default() };
        reader.read(0);
        reader.file
    }
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    file: File,
}

impl Reader {
    /// Reads up to the end of the block. `depth`: how many inline modules it stands in.
    fn read(&mut self, depth: usize) {
        while let Some(token) = self.peek(0).cloned() {
            match token {
                Token::Sign('#') if self.is_for_tests() => self.skip_item(),
                Token::Sign('#') => {
                    self.at += 1;
                    self.skip_sign('!');
                    self.skip_group();
                }
                Token::Sign('{') => {
                    self.at += 1;
                    self.read(depth);
                }
                Token::Sign('}') => {
                    self.at += 1;
                    return;
                }
                Token::Name(name) if name == "pub" => {
                    self.at += 1;
                    if self.peek(0) == Some(&Token::Sign('(')) {
                        self.skip_group();
                    }
                    if self.is_import() {
                        self.import(depth, true);
                    }
                }
                Token::Name(name) if name == "use" && self.is_import() => self.import(depth, false),
                Token::Name(name) if name == "mod" => self.module(depth),
                Token::Name(_) => self.path(depth),
                _ => self.at += 1,
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead)
    }

    fn name(&self, ahead: usize) -> Option<&str> {
        match self.peek(ahead) {
            Some(Token::Name(name)) => Some(name),
            _ => None,
        }
    }

    fn skip_sign(&mut self, sign: char) {
        self.at += usize::from(self.peek(0) == Some(&Token::Sign(sign)));
    }

    /// Skips what stands between two brackets that belong together.
    fn skip_group(&mut self) {
        let mut open = 0_usize;
        while let Some(token) = self.peek(0).cloned() {
            self.at += 1;
            match token {
                Token::Sign('(' | '[' | '{') => open += 1,
                Token::Sign(')' | ']' | '}') => open -= 1,
                _ => {}
            }
            if open == 0 {
                return;
            }
        }
    }

    /// Whether an attribute says that what follows is for tests alone.
    fn is_for_tests(&self) -> bool {
        let opens = self.peek(1) == Some(&Token::Sign('[')) && self.name(2) == Some("cfg");
        opens && self.name(4) == Some("test") && self.peek(5) == Some(&Token::Sign(')'))
    }

    /// Skips an item, a field or a statement with its attributes.
    fn skip_item(&mut self) {
        while self.peek(0) == Some(&Token::Sign('#')) {
            self.at += 1;
            self.skip_group();
        }
        if self.name(0) == Some("pub") {
            self.at += 1;
            if self.peek(0) == Some(&Token::Sign('(')) {
                self.skip_group();
            }
        }
        let is_constant = matches!(self.name(0), Some("const" | "static" | "type" | "use" | "let"));
        let is_whole = is_constant && self.name(1) != Some("fn");
        let is_item = matches!(
            self.name(0),
            Some("fn" | "async" | "const" | "unsafe" | "impl" | "mod" | "struct" | "enum" | "trait" | "macro_rules")
        );
        while let Some(token) = self.peek(0).cloned() {
            match token {
                Token::Sign('{') if is_item && !is_whole => return self.skip_group(),
                Token::Sign('(' | '[' | '{') => self.skip_group(),
                Token::Sign('}') => return,
                Token::Sign(';') => {
                    self.at += 1;
                    return;
                }
                Token::Sign(',') if !is_item && !is_whole => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
    }

    /// `impl Future + use<>` imports nothing.
    fn is_import(&self) -> bool {
        self.name(0) == Some("use") && self.peek(1) != Some(&Token::Sign('<'))
    }

    fn import(&mut self, depth: usize, is_public: bool) {
        self.at += 1;
        self.tree(&[], depth, is_public);
        self.skip_sign(';');
    }

    /// One branch of what is imported: a path, and what it ends in.
    fn tree(&mut self, before: &[String], depth: usize, is_public: bool) {
        let mut path = before.to_vec();
        loop {
            match self.peek(0).cloned() {
                Some(Token::Name(name)) => {
                    self.at += 1;
                    path.push(name);
                }
                Some(Token::Sign('{')) => {
                    self.at += 1;
                    while !matches!(self.peek(0), None | Some(Token::Sign('}'))) {
                        self.tree(&path, depth, is_public);
                        self.skip_sign(',');
                    }
                    self.skip_sign('}');
                    return;
                }
                Some(Token::Sign('*')) => {
                    self.at += 1;
                    path.push("*".to_owned());
                    break;
                }
                _ => break,
            }
            if self.peek(0) != Some(&Token::Colons) {
                break;
            }
            self.at += 1;
        }
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let mut name = path.last().cloned();
        if self.name(0) == Some("as") {
            name = self.name(1).map(ToOwned::to_owned);
            self.at += 2;
        }
        let Some(mut name) = name else { return };
        if name == "_" || name == "*" {
            // Nothing is called by this: it is listed under what no name can be.
            name = path.join("::");
        }
        path.retain(|name| name != "*");
        self.file.names.insert(name, Named { depth, path, is_public });
    }

    fn module(&mut self, depth: usize) {
        let name = self.name(1).map(ToOwned::to_owned);
        self.at += 1;
        match (name, self.peek(1)) {
            (Some(name), Some(Token::Sign(';'))) => drop(self.file.children.insert(name)),
            (Some(_), Some(Token::Sign('{'))) => {
                self.at += 2;
                self.read(depth + 1);
            }
            _ => {}
        }
    }

    /// A path in the code. A name alone leads nowhere by itself: what it stands for was imported, or is here.
    fn path(&mut self, depth: usize) {
        let mut path = Vec::new();
        let is_rooted = self.at == 0 || self.tokens[self.at - 1] != Token::Colons;
        while let Some(name) = self.name(0) {
            path.push(name.to_owned());
            self.at += 1;
            if self.peek(0) != Some(&Token::Colons) {
                break;
            }
            self.at += 1;
        }
        if !is_rooted {
            return;
        }
        self.file.used.extend(path.first().cloned());
        if path.len() > 1 {
            self.file.paths.push((depth, path));
        }
    }
}
