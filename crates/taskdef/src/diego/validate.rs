//! Diego's validation: its own texts in its own order (`bbs:models/*.go`), each with the path of what is wrong, and
//! the few rules of ours where Diego's code has a hole.

mod action;
mod egress;

use std::fmt;

use thiserror::Error;

pub(super) use egress::Destination;

use super::Rules;
use super::schema::{
    CachedDependency, DesiredTask, DigestAlgorithm, DynamicValue, ImageLayer, LayerType, MediaType,
    TaskDefinition,
};

/// The longest annotation, in bytes.
pub const MAX_ANNOTATION_BYTES: usize = 10 * 1024;
/// The longest environment entry a kernel takes, name and value and their end included (diego-release issue 892).
pub const MAX_ENV_BYTES: usize = 128 * 1024;

/// One thing wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Diego's text; empty for a problem that Diego reports only as part of another one.
    pub text: String,
    /// Path of the field, `action.serial.actions[1].run.path`.
    pub path: String,
    /// What is wrong with it, for people.
    pub rule: String,
}

/// A definition that is refused. Its text is Diego's: every text in Diego's order, joined by a comma and a blank.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Invalid {
    /// Every problem, in Diego's order.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.problems.iter().map(|problem| problem.text.as_str());
        let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
        f.write_str(&texts.join(", "))
    }
}

/// Collects problems.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    /// `Invalid field: NAME` of the field at `path`.
    fn field(&mut self, name: &str, path: impl Into<String>, rule: impl Into<String>) {
        self.text(format!("Invalid field: {name}"), path, rule);
    }

    fn text(&mut self, text: impl Into<String>, path: impl Into<String>, rule: impl Into<String>) {
        self.0.push(Problem {
            text: text.into(),
            path: path.into(),
            rule: rule.into(),
        });
    }

    /// Appends what `inner` finds after one text for all of it; nothing when it finds nothing.
    fn group(&mut self, name: &str, path: &str, inner: Problems) {
        if !inner.0.is_empty() {
            self.field(name, path, "see below");
            self.0.extend(inner.0);
        }
    }
}

/// Checks a desired task. `Ok` also means that [`plan`](super::plan::plan) can translate it.
///
/// # Errors
/// [`Invalid`] with everything that is wrong.
pub fn validate(desired: &DesiredTask, rules: &Rules) -> Result<(), Invalid> {
    let mut problems = Problems::default();
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    if desired.task_guid.is_empty() || !desired.task_guid.bytes().all(good) {
        problems.field("task_guid", "task_guid", "1 or more of a-z A-Z 0-9 _ -");
    }
    if desired.domain.is_empty() {
        problems.field("domain", "domain", "must not be empty");
    }
    match &desired.definition {
        None => problems.field("task_definition", "task_definition", "is missing"),
        Some(definition) => check_definition(definition, rules, &mut problems),
    }
    if problems.0.is_empty() {
        return Ok(());
    }
    Err(Invalid {
        problems: problems.0,
    })
}

fn check_definition(definition: &TaskDefinition, rules: &Rules, problems: &mut Problems) {
    if !is_url_with_scheme(&definition.rootfs) {
        problems.field("rootfs", "rootfs", "must be a URL with a scheme");
    }
    match &definition.action {
        None => problems.text("invalid action type", "action", "is missing"),
        Some(action) => {
            let mut inner = Problems::default();
            action::check(action, "action", &mut inner);
            problems.group("action", "action", inner);
        }
    }
    if definition.memory_mb < 0 {
        problems.field("memory_mb", "memory_mb", "must not be negative");
    }
    if definition.disk_mb < 0 {
        problems.field("disk_mb", "disk_mb", "must not be negative");
    }
    if let Some(limit) = &definition.log_rate_limit
        && limit.bytes_per_second < -1
    {
        problems.field(
            "log_rate_limit",
            "log_rate_limit.bytes_per_second",
            "must be -1 or more",
        );
    }
    if definition.max_pids < 0 {
        problems.field("max_pids", "max_pids", "must not be negative");
    }
    if definition.annotation.len() > MAX_ANNOTATION_BYTES {
        problems.field("annotation", "annotation", "must have at most 10240 bytes");
    }
    for (at, rule) in definition.egress_rules.iter().enumerate() {
        egress::check(rule, &format!("egress_rules[{at}]"), problems);
    }
    match (
        definition.image_username.is_empty(),
        definition.image_password.is_empty(),
    ) {
        (true, false) => problems.field(
            "image_username",
            "image_username",
            "is needed with image_password",
        ),
        (false, true) => problems.field(
            "image_password",
            "image_password",
            "is needed with image_username",
        ),
        _ => {}
    }
    for (at, dependency) in definition.cached_dependencies.iter().enumerate() {
        let path = format!("cached_dependencies[{at}]");
        problems.group(
            "cached_dependency",
            &path,
            check_dependency(dependency, &path),
        );
    }
    for (at, layer) in definition.image_layers.iter().enumerate() {
        let path = format!("image_layers[{at}]");
        problems.group("image_layer", &path, check_layer(layer, &path));
    }
    let mut layers = definition.image_layers.iter();
    let exclusive = layers.any(|layer| layer.layer_type == Some(LayerType::Exclusive));
    if rules.strict && exclusive && definition.legacy_download_user.is_empty() {
        problems.field(
            "legacy_download_user",
            "legacy_download_user",
            "is needed with an exclusive layer",
        );
    }
    check_ours(definition, problems);
}

/// What Diego accepts and then fails at, crashes on or has a hole in.
fn check_ours(definition: &TaskDefinition, problems: &mut Problems) {
    check_env(&definition.env, "env", problems);
    for (at, mount) in definition.volume_mounts.iter().enumerate() {
        let path = format!("volume_mounts[{at}]");
        let mut refuse = |field: &str, rule: &str| {
            problems.field("volume_mount", format!("{path}.{field}"), rule);
        };
        if mount.driver.is_empty() {
            refuse("driver", "must not be empty");
        }
        if !is_absolute(&mount.container_dir) {
            refuse(
                "container_dir",
                "must be an absolute path without dot segments",
            );
        }
        if mount.mode != "r" && mount.mode != "rw" {
            refuse("mode", "must be r or rw");
        }
        match &mount.shared {
            None => refuse("shared", "is missing"),
            Some(shared) if shared.volume_id.is_empty() => {
                refuse("shared.volume_id", "must not be empty")
            }
            Some(_) => {}
        }
    }
    for (name, value) in &definition.metric_tags {
        if value
            .dynamic
            .is_some_and(|dynamic| dynamic != DynamicValue::Invalid)
        {
            let path = format!("metric_tags.{name}.dynamic");
            problems.field(
                "metric_tags",
                path,
                "a task has no instance index and no instance guid",
            );
        }
    }
    for (at, file) in definition.volume_mounted_files.iter().enumerate() {
        if !is_inner(&file.path) {
            let path = format!("volume_mounted_files[{at}].path");
            problems.field(
                "volume_mounted_files",
                path,
                "must be relative, without dot segments",
            );
        }
    }
    let certificates = &definition.trusted_system_certificates_path;
    if !certificates.is_empty() && !is_absolute(certificates) {
        problems.field(
            "trusted_system_certificates_path",
            "trusted_system_certificates_path",
            "must be an absolute path",
        );
    }
}

fn check_env(env: &[super::schema::EnvironmentVariable], path: &str, problems: &mut Problems) {
    for (at, variable) in env.iter().enumerate() {
        if variable.name.is_empty() {
            problems.text(
                "Invalid field: name cannot be blank",
                format!("{path}[{at}].name"),
                "must not be empty",
            );
        } else if variable.name.contains(['=', '\0']) || variable.value.contains('\0') {
            problems.field(
                "env",
                format!("{path}[{at}]"),
                "= in a name and NUL cannot be passed to a program",
            );
        } else if variable.name.len() + variable.value.len() + 2 > MAX_ENV_BYTES {
            problems.field(
                "env",
                format!("{path}[{at}]"),
                "one variable of more than 131072 bytes cannot be executed",
            );
        }
    }
}

fn check_dependency(dependency: &CachedDependency, path: &str) -> Problems {
    let mut problems = Problems::default();
    if dependency.from.is_empty() {
        problems.field("from", format!("{path}.from"), "must not be empty");
    }
    if dependency.to.is_empty() {
        problems.field("to", format!("{path}.to"), "must not be empty");
    }
    check_checksum(
        &dependency.checksum_algorithm,
        &dependency.checksum_value,
        path,
        &mut problems,
    );
    if !is_mountable(&dependency.to) {
        problems.field(
            "to",
            format!("{path}.to"),
            "dot segments and NUL are not allowed",
        );
    }
    problems
}

/// Both or none, and one of the three that Diego's downloader knows.
fn check_checksum(algorithm: &str, value: &str, path: &str, problems: &mut Problems) {
    match (algorithm.is_empty(), value.is_empty()) {
        (true, true) => {}
        (true, false) => {
            problems.field(
                "checksum algorithm",
                format!("{path}.checksum_algorithm"),
                "is needed with checksum_value",
            );
        }
        (false, true) => {
            problems.field(
                "checksum value",
                format!("{path}.checksum_value"),
                "is needed with checksum_algorithm",
            );
        }
        (false, false) => {
            let known = ["md5", "sha1", "sha256"];
            if !known.contains(&algorithm.to_lowercase().as_str()) {
                problems.field(
                    "invalid algorithm",
                    format!("{path}.checksum_algorithm"),
                    "must be md5, sha1 or sha256",
                );
            }
        }
    }
}

fn check_layer(layer: &ImageLayer, path: &str) -> Problems {
    let mut problems = Problems::default();
    if layer.url.is_empty() {
        problems.field("url", format!("{path}.url"), "must not be empty");
    }
    if layer.destination_path.is_empty() {
        problems.field(
            "destination_path",
            format!("{path}.destination_path"),
            "must not be empty",
        );
    }
    let kind = layer.layer_type.filter(|kind| *kind != LayerType::Invalid);
    if kind.is_none() {
        problems.field(
            "layer_type",
            format!("{path}.layer_type"),
            "must be SHARED or EXCLUSIVE",
        );
    }
    if layer
        .media_type
        .is_none_or(|media| media == MediaType::Invalid)
    {
        problems.field(
            "media_type",
            format!("{path}.media_type"),
            "must be TGZ, TAR or ZIP",
        );
    }
    let algorithm = layer
        .digest_algorithm
        .filter(|algorithm| *algorithm != DigestAlgorithm::Invalid);
    let exclusive = kind == Some(LayerType::Exclusive);
    let value = !layer.digest_value.is_empty();
    // Diego's three conditions, the last of which repeats the first.
    if (value || exclusive) && algorithm.is_none() {
        problems.field(
            "digest_algorithm",
            format!("{path}.digest_algorithm"),
            "must be SHA256 or SHA512",
        );
    }
    if (algorithm.is_some() || exclusive) && !value {
        problems.field(
            "digest_value",
            format!("{path}.digest_value"),
            "must not be empty",
        );
    }
    if value && algorithm.is_none() {
        problems.field(
            "digest_algorithm",
            format!("{path}.digest_algorithm"),
            "must be SHA256 or SHA512",
        );
    }
    if kind == Some(LayerType::Shared) && !is_mountable(&layer.destination_path) {
        problems.field(
            "destination_path",
            format!("{path}.destination_path"),
            "dot segments and NUL are not allowed",
        );
    }
    problems
}

/// Whether Go's `url.Parse` takes it and finds a scheme.
fn is_url_with_scheme(text: &str) -> bool {
    if text.bytes().any(|c| c < 0x20 || c == 0x7f) {
        return false;
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let mut letters = scheme.bytes();
    if !letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        || !letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.'))
    {
        return false;
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, _query) = rest.split_once('?').unwrap_or((rest, ""));
    if !escapes_are_whole(fragment) {
        return false;
    }
    // What does not begin with a slash is opaque and not looked into.
    let Some(path) = rest.strip_prefix('/') else {
        return true;
    };
    let Some(after) = path.strip_prefix('/') else {
        return escapes_are_whole(path);
    };
    let (authority, path) = after.split_once('/').unwrap_or((after, ""));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    escapes_are_whole(path) && is_host(host)
}

fn escapes_are_whole(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|part| part.len() >= 2 && part.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit))
}

fn is_host(host: &str) -> bool {
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((_, "")) => return true,
            Some((_, port)) => port,
            None => return false,
        },
        None => match host.rfind(':') {
            Some(at) => &host[at..],
            None => {
                return !host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}', '%']);
            }
        },
    };
    let Some(digits) = port.strip_prefix(':') else {
        return false;
    };
    digits.bytes().all(|c| c.is_ascii_digit())
}

/// An absolute path without empty, `.` and `..` segments; `/` itself is none that a mount can have.
fn is_absolute(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|rest| is_inner(rest.trim_end_matches('/')))
}

/// A path whose text alone says where a mount goes; a relative one is below the root, as for Diego.
fn is_mountable(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "." | ".."))
}

/// A relative path that stays below where it begins.
fn is_inner(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests;
