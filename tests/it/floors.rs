//! The house stands as `ARCHITECTURE.md` draws it: a module imports only modules of lower floors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

#[test]
fn every_import_leads_to_a_lower_floor() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let floors = floors(&fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let mut upward = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&root.join("src")) {
        let module = top_module(&root.join("src"), &file);
        if module == "lib" {
            continue;
        }
        seen.insert(module.clone());
        let Some(own) = floors.get(&module) else {
            panic!("{module} is not drawn in ARCHITECTURE.md: put it on a floor")
        };
        for imported in imports(&fs::read_to_string(&file).unwrap()) {
            let floor = floors.get(&imported).unwrap_or_else(|| panic!("{imported} is not drawn in ARCHITECTURE.md"));
            if imported != module && floor >= own {
                upward.push(format!("{} imports {imported}", file.strip_prefix(root).unwrap().display()));
            }
        }
    }
    assert!(upward.is_empty(), "arrows that do not run down:\n{}", upward.join("\n"));
    let drawn: BTreeSet<_> = floors.into_keys().collect();
    assert_eq!(drawn, seen, "ARCHITECTURE.md draws other modules than src has");
}

#[test]
fn imports_are_found_however_they_are_written() {
    let code = "use crate::{\n    a::{b, c},\n    d,\n    e::f as g,\n};\nfn x() { crate::h::i(); }\npub(crate) use crate::j;\n\
                #[cfg(test)]\nmod tests { use crate::k; }";
    assert_eq!(imports(code).into_iter().collect::<Vec<_>>(), ["a", "d", "e", "h", "j"]);
}

/// The table's floors, counted from the lowest, by module.
fn floors(architecture: &str) -> BTreeMap<String, usize> {
    let mut floors = BTreeMap::new();
    for line in architecture.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, floor, modules, _, _] = cells[..]
            && let Ok(floor) = floor.parse()
        {
            for module in modules.split(',') {
                floors.insert(module.trim().trim_matches('`').to_owned(), floor);
            }
        }
    }
    floors
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(&path) {
            files.push(path);
        }
    }
    files
}

/// Files that only tests see may look upwards.
fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
    stem.starts_with("test") || stem.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
}

fn top_module(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The modules of the crate that some code names, apart from its tests.
fn imports(code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(group) => found.extend(heads(group)),
            None => found.extend(name(after)),
        }
    }
    found.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

/// The first name of each member of a brace group.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut at_head, mut heads) = (0, true, Vec::new());
    for (place, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            _ if at_head && !character.is_whitespace() => {
                heads.extend(name(&group[place..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn name(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}
