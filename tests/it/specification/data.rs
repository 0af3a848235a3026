//! The specification's OpenAPI data: its files, the references between them, and the operations that they describe.
//!
//! It is read from the folder that `MATRIX_SPEC_DATA` names, which is laid out as in
//! <https://github.com/matrix-org/matrix-spec/tree/main/data>.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    sync::LazyLock,
};

use reqwest::Method;
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Value, json};

/// The data, read once. None where no folder is named.
static DATA: LazyLock<Option<Data>> = LazyLock::new(|| {
    let folder = std::env::var_os("MATRIX_SPEC_DATA").filter(|folder| !folder.is_empty())?;
    Some(Data::read(Path::new(&folder)))
});

/// The API that clients call, as its endpoints are listed by.
pub(super) const CLIENT_SERVER: &str = "client-server";
/// The one that servers call.
pub(super) const SERVER_SERVER: &str = "server-server";

/// Every file that the two APIs consist of, by its path.
pub(super) struct Data {
    folder: PathBuf,
    files: BTreeMap<PathBuf, Value>,
}

/// A place in a file, to which its references are relative.
#[derive(Clone, Copy)]
pub(super) struct Node {
    data: &'static Data,
    file: &'static Path,
    pub(super) value: &'static Value,
}

/// An endpoint: what it takes and what it may answer.
pub(super) struct Operation {
    pub(super) id: &'static str,
    pub(super) method: Method,
    /// With `{name}` in the place of each parameter.
    pub(super) path: String,
    pub(super) auth: Auth,
    pub(super) parameters: Vec<Parameter>,
    /// The schema of the body, where that is JSON.
    pub(super) body: Option<Node>,
    /// The body is a file.
    pub(super) takes_bytes: bool,
    pub(super) responses: BTreeMap<u16, Response>,
}

/// Whose token an endpoint asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    Nobodys,
    /// A user's, who may also come without.
    Optional,
    Users,
    ApplicationServices,
    /// They sign the request.
    Servers,
}

pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `path`, `query` or `header`.
    pub(super) place: &'static str,
    pub(super) required: bool,
    pub(super) example: Option<&'static Value>,
}

#[derive(Default)]
pub(super) struct Response {
    /// The schema of the body, where that is JSON.
    pub(super) schema: Option<Node>,
    pub(super) examples: Vec<Value>,
}

/// The data, if there is any.
pub(super) fn find() -> Option<&'static Data> {
    DATA.as_ref()
}

impl Data {
    fn read(folder: &Path) -> Self {
        let mut data = Self { folder: normal(folder), files: BTreeMap::new() };
        let mut wanted = Vec::new();
        for api in [CLIENT_SERVER, SERVER_SERVER] {
            let entries = fs::read_dir(data.folder.join("api").join(api));
            let entries = entries.unwrap_or_else(|error| panic!("MATRIX_SPEC_DATA has no api/{api}: {error}"));
            let paths = entries.map(|entry| entry.unwrap().path());
            wanted.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")));
        }
        while let Some(path) = wanted.pop() {
            if data.files.contains_key(&path) {
                continue;
            }
            let value = match fs::read_to_string(&path) {
                Ok(text) => parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
                // The data of other services may be left out. What they define is not judged here.
                Err(_) if path.components().any(|part| part.as_os_str() == "identity") => json!({}),
                Err(error) => panic!("{}: {error}", path.display()),
            };
            references(&value, &mut |reference| wanted.extend(target(&path, reference)));
            data.files.insert(path, value);
        }
        data
    }

    /// Data of a test's own, which lives as long as the tests do.
    pub(super) fn of(files: &[(&str, &str)]) -> &'static Self {
        let files = files.iter().map(|(path, text)| (PathBuf::from(path), parse(text).unwrap())).collect();
        Box::leak(Box::new(Self { folder: PathBuf::new(), files }))
    }

    /// The whole of a file.
    pub(super) fn file(&'static self, path: &Path) -> Node {
        let found = self.files.get_key_value(path);
        let (file, value) = found.unwrap_or_else(|| panic!("the data has no file {}", path.display()));
        Node { data: self, file, value }
    }

    /// Every endpoint of an API.
    pub(super) fn operations(&'static self, api: &str) -> Vec<Operation> {
        let folder = self.folder.join("api").join(api);
        let files = self.files.keys().filter(|path| path.parent() == Some(folder.as_path()));
        files.flat_map(|path| operations(self.file(path))).collect()
    }

    /// Method, path and identifier of each endpoint of an API, by the list that may come with the data.
    pub(super) fn find_listed(&self, api: &str) -> Option<BTreeSet<(String, String, String)>> {
        let list = fs::read_to_string(self.folder.join("endpoints.json")).ok()?;
        let list: Vec<BTreeMap<String, Value>> = serde_json::from_str(&list).unwrap();
        let text = |entry: &BTreeMap<String, Value>, key: &str| entry[key].as_str().unwrap().trim().to_owned();
        let listed = list.iter().filter(|entry| entry["api"] == api);
        Some(listed.map(|entry| (text(entry, "method"), text(entry, "path"), text(entry, "id"))).collect())
    }
}

/// The endpoints that a file describes.
pub(super) fn operations(file: Node) -> Vec<Operation> {
    let base = file.at(&["servers", "0", "variables", "basePath", "default"]).text();
    let mut operations = Vec::new();
    for (path, item) in file.at(&["paths"]).entries() {
        for (method, operation) in item.entries() {
            // Some paths of the data end in a space, so that two operations can stand at one.
            operations.push(Operation::read(method, format!("{base}{}", path.trim()), operation));
        }
    }
    operations
}

impl Operation {
    fn read(method: &str, path: String, node: Node) -> Self {
        let method = match method {
            "get" => Method::GET,
            "put" => Method::PUT,
            "post" => Method::POST,
            "delete" => Method::DELETE,
            other => panic!("{path}: {other} is no method that the walk knows"),
        };
        let parameters = node.find("parameters").map_or_else(Vec::new, Node::items);
        let content = node.find("requestBody").and_then(|body| body.followed().find("content"));
        let body = content.and_then(|content| content.find("application/json"));
        let responses = node.at(&["responses"]).entries().into_iter();
        Self {
            id: node.at(&["operationId"]).text(),
            method,
            auth: Auth::read(node.find("security"), &path),
            path,
            parameters: parameters.into_iter().map(Parameter::read).collect(),
            body: body.map(|body| body.at(&["schema"])),
            takes_bytes: content.is_some_and(|content| content.find("application/octet-stream").is_some()),
            responses: responses.map(|(status, node)| (status.parse().unwrap(), Response::read(node))).collect(),
        }
    }
}

impl Auth {
    fn read(security: Option<Node>, path: &str) -> Self {
        let is_between_servers = ["/_matrix/federation/", "/_matrix/policy/"].iter().any(|api| path.starts_with(api));
        let schemes = security.map_or_else(Vec::new, Node::items);
        let names: Vec<_> = schemes.iter().map(|scheme| scheme.entries().first().map(|(name, _)| *name)).collect();
        match names[..] {
            [] => Self::Nobodys,
            // Of one endpoint it says that a token is enough; the prose that all are signed.
            [Some("signedRequest" | "accessToken")] if is_between_servers => Self::Servers,
            // The data says for a room's summary that other servers sign the request; the prose that users may come.
            [None, Some("accessTokenQuery"), Some("accessTokenBearer")] | [Some("signedRequest")] => Self::Optional,
            [Some("accessTokenQuery"), Some("accessTokenBearer")] => Self::Users,
            [Some("appserviceAccessTokenQuery"), Some("appserviceAccessTokenBearer")] => Self::ApplicationServices,
            _ => panic!("{names:?} is no security that the walk knows"),
        }
    }
}

impl Parameter {
    fn read(node: Node) -> Self {
        let node = node.followed();
        Self {
            name: node.at(&["name"]).text(),
            place: node.at(&["in"]).text(),
            required: node.find("required").is_some_and(|required| *required.value == true),
            example: node.find("example").map(|example| example.value).filter(|example| !example.is_null()),
        }
    }
}

impl Response {
    fn read(node: Node) -> Self {
        let Some(content) = node.followed().find("content").and_then(|content| content.find("application/json")) else {
            return Self::default();
        };
        let examples = content.find("examples").map_or_else(Vec::new, Node::entries).into_iter();
        let examples = examples.map(|(_, example)| example.followed().at(&["value"]).written_out()).collect();
        Self { schema: content.find("schema"), examples }
    }
}

impl Node {
    /// What is below, by keys and indices.
    pub(super) fn at(self, path: &[&str]) -> Self {
        path.iter().fold(self, |node, key| {
            node.find(key).unwrap_or_else(|| panic!("{} lacks {path:?}: {}", self.file.display(), self.value))
        })
    }

    /// What stands under one key, or at an index in figures.
    pub(super) fn find(self, key: &str) -> Option<Self> {
        let value = match self.value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            other => other.get(key),
        };
        value.map(|value| Self { value, ..self })
    }

    pub(super) fn text(self) -> &'static str {
        self.value.as_str().unwrap_or_else(|| panic!("{}: {} is not a string", self.file.display(), self.value))
    }

    pub(super) fn items(self) -> Vec<Self> {
        let items = self.value.as_array();
        let items = items.unwrap_or_else(|| panic!("{}: {} is not a list", self.file.display(), self.value));
        items.iter().map(|value| Self { value, ..self }).collect()
    }

    pub(super) fn entries(self) -> Vec<(&'static str, Self)> {
        let entries = self.value.as_object();
        let entries = entries.unwrap_or_else(|| panic!("{}: {} is not an object", self.file.display(), self.value));
        entries.iter().map(|(key, value)| (key.as_str(), Self { value, ..self })).collect()
    }

    /// What this refers to, if it is a reference.
    fn followed(self) -> Self {
        self.find("$ref").map_or(self, |reference| self.resolve(reference.text()).followed())
    }

    /// The place that a reference names.
    pub(super) fn resolve(self, reference: &str) -> Self {
        let file = target(self.file, reference).unwrap_or_else(|| self.file.to_owned());
        let fragment = reference.split_once('#').map_or("", |(_, fragment)| fragment);
        let mut node = self.data.file(&file);
        for key in fragment.split('/').filter(|key| !key.is_empty()) {
            node = node.at(&[&key.replace("~1", "/").replace("~0", "~")]);
        }
        node
    }

    /// An example with what its parts refer to, where the parts may say more.
    fn written_out(self) -> Value {
        match self.value {
            Value::Array(_) => self.items().into_iter().map(Self::written_out).collect(),
            Value::Object(_) => {
                let mut written = self.find("$ref").map_or_else(|| json!({}), |r| self.resolve(r.text()).written_out());
                for (key, node) in self.entries().into_iter().filter(|(key, _)| *key != "$ref") {
                    written[key] = node.written_out();
                }
                written
            }
            plain => plain.clone(),
        }
    }
}

/// The file that a reference leads to from another one; none if it stays there.
fn target(from: &Path, reference: &str) -> Option<PathBuf> {
    let file = reference.split('#').next().filter(|file| !file.is_empty())?;
    Some(normal(&from.parent().unwrap().join(file)))
}

/// A path without `..`, as far as can be told without looking.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, part| {
        match part {
            Component::ParentDir if normal.file_name().is_some() => assert!(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
        normal
    })
}

/// Calls `found` with every reference in a file.
fn references(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(reference) if key == "$ref" => found(reference),
                    other => references(other, found),
                }
            }
        }
        _ => {}
    }
}

fn parse(text: &str) -> Result<Value, saphyr::ScanError> {
    // In the data, what was opened after a key may be closed right below it, which is less indented than YAML wants it.
    let closes = |line: &str| !line.trim().is_empty() && line.trim().chars().all(|c| "}],".contains(c));
    let lines = text.lines().map(|line| if closes(line) { format!("  {line}\n") } else { format!("{line}\n") });
    let documents = Yaml::load_from_str(&lines.collect::<String>())?;
    Ok(documents.into_iter().next().map_or(Value::Null, plain))
}

/// YAML as JSON. Keys that are no strings, such as a version without quotation marks, become some.
fn plain(yaml: Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => value.into(),
        Yaml::Value(Scalar::Integer(value)) => value.into(),
        Yaml::Value(Scalar::FloatingPoint(value)) => value.into_inner().into(),
        Yaml::Value(Scalar::String(value)) => value.into(),
        Yaml::Sequence(items) => items.into_iter().map(plain).collect(),
        Yaml::Mapping(entries) => {
            let key = |key| match plain(key) {
                Value::String(key) => key,
                other => other.to_string(),
            };
            Value::Object(entries.into_iter().map(|(name, value)| (key(name), plain(value))).collect())
        }
        other => panic!("{other:?} has no meaning in JSON"),
    }
}

mod tests {
    use super::*;

    #[test]
    fn references_lead_to_other_files_and_to_places_in_them() {
        let data = Data::of(&[
            ("api/a.yaml", "here: { $ref: '#/there' }\nthere: 1\nelsewhere: { $ref: ../defs/b.yaml#/x~1y/1 }"),
            ("defs/b.yaml", "x/y: [no, { $ref: c.yaml }]\n1.18: float"),
            ("defs/c.yaml", "[two, three]"),
        ]);
        let file = data.file(Path::new("api/a.yaml"));
        assert_eq!(*file.at(&["here"]).followed().value, 1);
        assert_eq!(*file.at(&["elsewhere"]).followed().value, json!(["two", "three"]));
        assert_eq!(file.written_out(), json!({ "here": 1, "there": 1, "elsewhere": ["two", "three"] }));
        assert_eq!(data.file(Path::new("defs/b.yaml")).at(&["1.18"]).text(), "float");
    }

    #[test]
    fn paths_are_joined_without_looking_at_the_disk() {
        let joined = |reference| target(Path::new("/spec/api/a/x.yaml"), reference);
        assert_eq!(joined("../../e/./s.yaml#/p"), Some(PathBuf::from("/spec/e/s.yaml")));
        assert_eq!(joined("#/p"), None);
    }
}
