//! The interface itself: the rules of `buf lint` STANDARD as far as they touch us, and compatibility with what landed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, field_descriptor_proto::Label,
};

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(portlayer_proto::DESCRIPTORS).unwrap();
    let ours = set.file.into_iter();
    let ours: Vec<_> = ours
        .filter(|file| file.package() == "portlayer.v1")
        .collect();
    assert!(ours.len() >= 6);
    ours
}

fn is_lower_snake(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// `PlanStepKind` is `PLAN_STEP_KIND`.
fn upper_snake(name: &str) -> String {
    let mut upper = String::new();
    for (at, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && at > 0 {
            upper.push('_');
        }
        upper.push(c.to_ascii_uppercase());
    }
    upper
}

fn check_enum(of: &EnumDescriptorProto, faults: &mut Vec<String>) {
    let prefix = upper_snake(of.name());
    for value in &of.value {
        if !value.name().starts_with(&format!("{prefix}_")) {
            faults.push(format!("{}: {} lacks the prefix", of.name(), value.name()));
        }
    }
    let zero = of.value.first().map(|value| (value.name(), value.number()));
    if zero != Some((&format!("{prefix}_UNSPECIFIED"), 0)) {
        faults.push(format!("{}: zero is not {prefix}_UNSPECIFIED", of.name()));
    }
}

fn check_message(of: &DescriptorProto, faults: &mut Vec<String>) {
    let fields = of.field.iter().map(FieldDescriptorProto::name);
    let names = fields.chain(of.oneof_decl.iter().map(|oneof| oneof.name()));
    for name in names {
        // `_name` is how proto3 says optional.
        if !is_lower_snake(name.trim_start_matches('_')) {
            faults.push(format!("{}: field {name}", of.name()));
        }
    }
    of.enum_type.iter().for_each(|e| check_enum(e, faults));
    of.nested_type.iter().for_each(|m| check_message(m, faults));
}

#[test]
fn names_are_those_that_buf_wants() {
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for file in files() {
        if file.syntax() != "proto3" {
            faults.push(format!("{}: syntax {}", file.name(), file.syntax()));
        }
        file.enum_type
            .iter()
            .for_each(|e| check_enum(e, &mut faults));
        file.message_type
            .iter()
            .for_each(|m| check_message(m, &mut faults));
        for service in &file.service {
            if !service.name().ends_with("Service") {
                faults.push(format!("service {}", service.name()));
            }
            for method in &service.method {
                for (given, ending) in [
                    (method.input_type(), "Request"),
                    (method.output_type(), "Response"),
                ] {
                    if given != format!(".portlayer.v1.{}{ending}", method.name()) {
                        faults.push(format!("{}: {given}", method.name()));
                    }
                    if !used.insert(given.to_owned()) {
                        faults.push(format!("{given} is used twice"));
                    }
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

/// Every declaration has a comment on the line before it.
#[test]
fn everything_is_commented() {
    let mut bare = Vec::new();
    for path in protos() {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let first = line.split_whitespace().next().unwrap_or_default();
            let declares = line.contains(" = ") && line.ends_with(';') && first != "syntax"
                || ["message", "enum", "service", "rpc", "oneof"].contains(&first);
            if declares && !lines[at - 1].starts_with("//") {
                bare.push(format!("{}:{}: {line}", path.display(), at + 1));
            }
        }
    }
    assert_eq!(bare, Vec::<String>::new());
}

fn protos() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/portlayer/v1");
    let entries = std::fs::read_dir(directory).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "proto"));
    paths.sort();
    assert!(paths.len() >= 6);
    paths
}

/// What a peer built against an earlier version relies on: names, numbers, types, streams.
fn promises() -> BTreeMap<String, String> {
    fn message(path: &str, of: &DescriptorProto, all: &mut BTreeMap<String, String>) {
        let path = format!("{path}.{}", of.name());
        all.insert(format!("message {path}"), String::new());
        for field in &of.field {
            let many = field.label() == Label::Repeated;
            let what = format!(
                "{} {}{}{}",
                field.name(),
                if many { "repeated " } else { "" },
                format!("{:?}", field.r#type()).to_lowercase(),
                field.type_name()
            );
            all.insert(format!("field {path} {}", field.number()), what);
        }
        for nested in &of.nested_type {
            message(&path, nested, all);
        }
        for nested in &of.enum_type {
            enumeration(&path, nested, all);
        }
    }
    fn enumeration(path: &str, of: &EnumDescriptorProto, all: &mut BTreeMap<String, String>) {
        for value in &of.value {
            let key = format!("value {path}.{} {}", of.name(), value.number());
            all.insert(key, value.name().to_owned());
        }
    }
    let mut all = BTreeMap::new();
    for file in files() {
        for of in &file.message_type {
            message("portlayer.v1", of, &mut all);
        }
        for of in &file.enum_type {
            enumeration("portlayer.v1", of, &mut all);
        }
        for service in &file.service {
            for method in &service.method {
                let streams = format!(
                    "{}{}",
                    if method.client_streaming() {
                        "stream "
                    } else {
                        ""
                    },
                    if method.server_streaming() {
                        "to stream"
                    } else {
                        ""
                    },
                );
                all.insert(
                    format!("rpc {}/{}", service.name(), method.name()),
                    streams.trim().to_owned(),
                );
            }
        }
    }
    all
}

/// `proto/portlayer/v1/promises.txt` is what was promised: it must stay as it is. Additions break nobody; they become
/// promises when they are recorded with UPDATE_EXPECT=1.
#[test]
fn what_landed_stays_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/portlayer/v1/promises.txt");
    let now = promises();
    let text: String = now
        .iter()
        .map(|(key, what)| format!("{}\n", format!("{key}: {what}").trim_end()))
        .collect();
    let landed = std::fs::read_to_string(&path).unwrap();
    let broken: Vec<_> = landed
        .lines()
        .filter(|line| !text.lines().any(|now| now == *line))
        .collect();
    assert_eq!(broken, Vec::<&str>::new(), "this breaks older peers");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
}

/// The verbs of the Rust API: the public methods of `PortLayer`.
fn verbs() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/portlayer/src")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for part in text.split("\nimpl PortLayer {\n").skip(1) {
            let (part, _) = part.split_once("\n}").unwrap();
            for line in part.lines() {
                let verb = ["    pub async fn ", "    pub fn "].iter();
                let verb = verb.clone().find_map(|begin| line.strip_prefix(begin));
                let name = verb.and_then(|rest| rest.split(['(', '<']).next());
                found.extend(name.map(str::to_owned));
            }
        }
    }
    found
}

/// What the Rust API can do a caller of the daemon can do by the same name, but for what only its owner does.
#[test]
fn every_verb_has_a_call() {
    let elsewhere: BTreeMap<&str, &str> = [
        ("open", "who runs the daemon does"),
        ("close", "who runs the daemon does"),
        ("with_actor", "the peer's credentials say who it is"),
        ("composed", "compose and join"),
        ("engine_info", "info"),
        ("ping_engine", "health, diagnostics"),
        ("engine_status", "health, /metrics"),
        ("can_create", "the beginning of create and pull"),
        ("figures", "/metrics"),
        (
            "inside",
            "open directories, which only the same process can use",
        ),
    ]
    .into();
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/client/src");
    let mut calls = String::new();
    for entry in std::fs::read_dir(client).unwrap() {
        calls += &std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
    }
    let verbs = verbs();
    assert!(verbs.len() > 30, "{verbs:?}");
    let missing: Vec<_> = verbs
        .iter()
        .filter(|verb| !elsewhere.contains_key(verb.as_str()))
        .filter(|verb| {
            let has = |end| calls.contains(&format!("    pub async fn {verb}{end}"));
            !has('(') && !has('<')
        })
        .collect();
    assert_eq!(missing, Vec::<&String>::new());
}
