//! The code stands as `ARCHITECTURE.md` draws it: layers that import only what is drawn before them, and no files that
//! import each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use self::source::{Module, Sources, loops};

mod source;
mod tokens;

#[test]
fn every_import_leads_to_what_is_drawn_before() {
    let drawing = Drawing::read(&text("ARCHITECTURE.md"));
    let sources = sources();
    let mut upward = Vec::new();
    for module in sources.modules() {
        for imported in sources.imports(module) {
            if !drawing.allows(module, &imported) {
                upward.push(format!("{} imports {}", module.join("/"), imported.join("/")));
            }
        }
    }
    assert!(upward.is_empty(), "arrows that do not run down:\n{}", upward.join("\n"));
}

#[test]
fn every_module_is_drawn_and_what_is_drawn_is_there() {
    let drawn = Drawing::read(&text("ARCHITECTURE.md"));
    let there: BTreeSet<Module> = sources().modules().map(|module| module.iter().take(2).cloned().collect()).collect();
    assert_eq!(drawn.0.into_keys().collect::<BTreeSet<_>>(), there, "ARCHITECTURE.md draws other modules than src has");
}

#[test]
fn every_file_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let architecture = text("ARCHITECTURE.md");
    let named: BTreeSet<&str> = architecture
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "rs"))
        .collect();
    assert!(named.len() > 50, "{named:?}");
    let gone: Vec<_> =
        named.into_iter().filter(|name| !root.join("src").join(name).exists() && !root.join(name).exists()).collect();
    assert!(gone.is_empty(), "ARCHITECTURE.md names files that are not there: {gone:?}");
}

/// What a client wants to be told is a value of the core's own, into which each shape turns what its requests carry.
#[test]
fn the_core_of_sync_knows_no_filter_of_a_request() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = sources();
    let is_core = |module: &&Module| module.starts_with(&["reader", "sync"].map(String::from)) && !has_shape(module);
    let core: Vec<&Module> = sources.modules().filter(is_core).collect();
    assert!(core.len() > 10, "{core:?}");
    for module in core {
        let text = fs::read_to_string(src.join(module.join("/") + ".rs")).unwrap();
        for name in ["client::filter", "FilterDefinition", "RoomEventFilter", "people::filter"] {
            assert!(!text.contains(name), "{} names {name}", module.join("/"));
        }
    }
}

fn has_shape(module: &[String]) -> bool {
    module.get(2).is_some_and(|name| name == "v3")
}

#[test]
fn no_files_import_each_other() {
    let sources = sources();
    let imports = sources.modules().map(|module| (module.clone(), sources.imports(module))).collect();
    assert_no_loops(&imports);
}

fn assert_no_loops(imports: &BTreeMap<Module, BTreeSet<Module>>) {
    let loops: Vec<String> = loops(imports)
        .into_iter()
        .map(|way| way.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(" -> "))
        .collect();
    assert!(loops.is_empty(), "files that import each other:\n{}", loops.join("\n"));
}

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn sources() -> Sources {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    Sources::load(|path| fs::read_to_string(src.join(path)).ok())
}

/// The table of layers: where each layer stands, and each of its modules within it.
#[derive(Debug, PartialEq, Eq)]
struct Drawing(BTreeMap<Module, (usize, usize)>);

impl Drawing {
    /// A row for each layer, from the ground up. `<` stands between modules and those of the layer that import them.
    fn read(architecture: &str) -> Self {
        let rows = architecture.lines().skip_while(|line| !line.starts_with("| layer |")).skip(2);
        let mut places = BTreeMap::new();
        for (floor, row) in rows.take_while(|line| line.starts_with('|')).enumerate() {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let layer = vec![cells.next().unwrap().trim_matches('`').to_owned()];
            for (step, modules) in cells.next().unwrap().split('<').enumerate() {
                for name in modules.split('`').skip(1).step_by(2) {
                    places.insert(vec![layer[0].clone(), name.to_owned()], (floor, step));
                }
            }
            places.insert(layer, (floor, usize::MAX));
        }
        Self(places)
    }

    /// Whether one file may import another. Within a module of a layer everything may, but for loops.
    fn allows(&self, importer: &[String], imported: &[String]) -> bool {
        let (own, other) = (self.place(importer), self.place(imported));
        match (own.0 == other.0, importer.get(1) == imported.get(1)) {
            (false, _) => other.0 < own.0,
            // What stands in the layer's own file is anybody's.
            (true, false) => imported.len() == 1 || other.1 < own.1,
            (true, true) => true,
        }
    }

    fn place(&self, file: &[String]) -> (usize, usize) {
        let module = &file[..file.len().min(2)];
        let place = self.0.get(module);
        *place.unwrap_or_else(|| panic!("{} is not drawn in ARCHITECTURE.md", module.join("/")))
    }
}

mod of_the_reader {
    use super::*;

    /// What the files of a crate import, by their paths.
    fn imports(files: &[(&str, &str)]) -> BTreeMap<Module, BTreeSet<Module>> {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        let sources = Sources::load(|path| files.get(path).map(|text| (*text).to_owned()));
        sources.modules().map(|module| (module.clone(), sources.imports(module))).collect()
    }

    fn path(module: &str) -> Module {
        module.split('/').map(ToOwned::to_owned).collect()
    }

    /// What one file imports that stands beside modules `a` to `d`, each with something of its own.
    fn of_one(text: &str) -> Vec<String> {
        let lib = ("lib.rs", "pub mod a; pub mod b; pub mod c; pub mod d; mod one;");
        let [a, b, c, d] = ["a.rs", "b.rs", "c.rs", "d.rs"].map(|path| (path, "pub struct Thing; pub fn thing() {}"));
        let imports = imports(&[lib, a, b, c, d, ("one.rs", text), ("one/child.rs", "pub struct Child;")]);
        imports[&path("one")].iter().map(|module| module.join("/")).collect()
    }

    #[test]
    fn imports_are_found_however_they_are_written() {
        assert_eq!(of_one("use crate::{\n    a::{self, Thing as Other},\n    b,\n};"), ["a", "b"]);
        assert_eq!(of_one("pub fn f() -> crate::a::Thing { if x { crate::b::thing() } }"), ["a", "b"]);
        assert_eq!(of_one("use super::{a::*, b::thing as _};"), ["a", "b"]);
        assert_eq!(
            of_one("mod child;\nfn f() { child::go(); <super::a::Thing as Into<u8>>::into(); }"),
            ["a", "one/child"]
        );
        assert_eq!(of_one("mod inner { use super::super::a::Thing; fn f() { super::f(); } }"), ["a"]);
        assert_eq!(of_one("use crate::a as name; fn f() { name::thing(); hearth::b::thing() }"), ["a", "b"]);
    }

    #[test]
    fn what_is_no_import_is_none() {
        assert_eq!(of_one("// use crate::a;\n/* crate::b */ const T: &str = \"crate::c\";"), [""; 0]);
        assert_eq!(
            of_one("const T: &str = r#\"\" crate::a\"#; const C: char = '\"'; fn f<'a>() { crate::b::thing() }"),
            ["b"]
        );
        assert_eq!(of_one("pub(in crate::a) fn f() -> impl Sized + use<> {}"), [""; 0]);
        assert_eq!(of_one("use std::fmt; use fmt::Display; pub(crate) use self::Thing; pub struct Thing;"), [""; 0]);
    }

    #[test]
    fn what_is_for_tests_alone_is_left_out() {
        assert_eq!(of_one("#[cfg(test)]\nmod tests { use crate::a; }\nuse crate::b;"), ["b"]);
        assert_eq!(
            of_one(
                "#[cfg(test)]\n#[allow(x)]\npub(crate) async fn f() { crate::a::thing() } fn g() { crate::b::thing() }"
            ),
            ["b"]
        );
        assert_eq!(of_one("#[cfg(test)]\nuse crate::a::{Thing};\n#[cfg(test)]\nmod c;\nuse crate::b;"), ["b"]);
        assert_eq!(of_one("struct S { #[cfg(test)] pub a: crate::a::Thing, b: crate::b::Thing }"), ["b"]);
    }

    #[test]
    fn what_is_passed_on_leads_to_where_it_is() {
        let files = [
            ("lib.rs", "mod house; mod guest;"),
            ("house.rs", "mod kitchen; mod cellar; pub use self::kitchen::Cook; use cellar::Wine;"),
            ("house/kitchen.rs", "use super::Wine; pub struct Cook;"),
            ("house/cellar.rs", "pub struct Wine;"),
            ("guest.rs", "use crate::house::Cook;"),
        ];
        let imports = imports(&files);
        assert_eq!(imports[&path("guest")], BTreeSet::from([path("house/kitchen")]));
        assert_eq!(imports[&path("house/kitchen")], BTreeSet::from([path("house/cellar")]));
        assert_eq!(imports[&path("house")], BTreeSet::from([path("house/cellar")]));
        assert_eq!(of_one("pub use crate::a::Thing; pub(crate) use crate::b::thing; fn f() { thing() }"), ["b"]);
        assert_no_loops(&imports);
    }

    #[test]
    #[should_panic = "house -> house/kitchen -> house"]
    fn files_that_import_each_other_are_noticed() {
        assert_no_loops(&imports(&[
            ("lib.rs", "mod house;"),
            ("house.rs", "mod kitchen; pub struct House(kitchen::Cook);"),
            ("house/kitchen.rs", "pub struct Cook(super::House);"),
        ]));
    }

    #[test]
    fn layers_are_read_from_the_ground_up_and_modules_from_left_to_right() {
        let drawing = Drawing::read(
            "| layer | modules | what it is for |\n|---|---|---|\n| `a` | – | x |\n| `b` | `c`, `d` < `e` | x |\n\n| other |",
        );
        let allows = |importer: &str, imported: &str| drawing.allows(&path(importer), &path(imported));
        assert!(allows("b", "a") && !allows("a", "b"));
        assert!(allows("b/e", "b/d/deep") && !allows("b/d", "b/e") && !allows("b/c", "b/d"));
        assert!(allows("b/c/deep", "b/c") && allows("b/c", "a") && !allows("a", "b/c"));
    }
}
