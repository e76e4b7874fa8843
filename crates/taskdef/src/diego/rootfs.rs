//! The URL of a root file system: `preloaded:NAME` or `docker://[host]/path[#tag]`.

use portlayer::element::{ElementId, IdError, Kind};

/// What a URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rootfs {
    /// A name the operator has registered.
    Preloaded(String),
    /// `host/path:tag` or `host/path@sha256:hex`.
    Registry(String),
}

/// The host that a reference without one means.
const HUB: &str = "docker.io";

/// Reads a URL; `None` when it is of no form a node knows (`preloaded+layer` is made by Diego's own executor and never
/// sent by a client).
pub(super) fn parse(text: &str) -> Option<Rootfs> {
    let (scheme, rest) = text.split_once(':')?;
    match scheme.to_ascii_lowercase().as_str() {
        "preloaded" => {
            Some(Rootfs::Preloaded(rest.to_owned()).clone()).filter(|_| !rest.is_empty())
        }
        "docker" => docker(rest.strip_prefix("//")?),
        _ => None,
    }
}

/// The image element in a location that a `docker://` URL of a root file system means; `None` for any other.
pub fn image_of(url: &str, location: &str) -> Option<ElementId> {
    match parse(url)? {
        Rootfs::Registry(reference) => image(&reference, location).ok(),
        Rootfs::Preloaded(_) => None,
    }
}

/// The image element of a reference.
pub(super) fn image(reference: &str, location: &str) -> Result<ElementId, IdError> {
    let name = reference.replace("@sha256:", "/sha256.");
    ElementId::new(Kind::Image, location, &name)
}

fn docker(rest: &str) -> Option<Rootfs> {
    let (path, tag) = match rest.split_once('#') {
        Some((path, tag)) => (path, Some(tag).filter(|tag| !tag.is_empty())),
        None => (rest, None),
    };
    let (host, path) = path.split_once('/')?;
    let host = match host {
        "" | "index.docker.io" | "registry-1.docker.io" => HUB,
        host => host,
    };
    if path.is_empty() {
        return None;
    }
    let library = if host == HUB && !path.contains('/') {
        "library/"
    } else {
        ""
    };
    // A digest is written `path@sha256#hex`.
    let reference = match (path.strip_suffix("@sha256"), tag) {
        (Some(path), Some(hex)) => format!("{host}/{library}{path}@sha256:{hex}"),
        (Some(_), None) => return None,
        (None, tag) => format!("{host}/{library}{path}:{}", tag.unwrap_or("latest")),
    };
    Some(Rootfs::Registry(reference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_canonical() {
        for (text, reference) in [
            ("docker:///busybox", "docker.io/library/busybox:latest"),
            (
                "docker:///docker.com/docker",
                "docker.io/docker.com/docker:latest",
            ),
            ("docker:///a/b#1.0", "docker.io/a/b:1.0"),
            (
                "docker://registry.example:5000/a/b#x",
                "registry.example:5000/a/b:x",
            ),
            ("docker:///a/b@sha256#00ff", "docker.io/a/b@sha256:00ff"),
        ] {
            assert_eq!(
                parse(text),
                Some(Rootfs::Registry(reference.to_owned())),
                "{text}"
            );
        }
        assert_eq!(
            parse("preloaded:cflinuxfs4"),
            Some(Rootfs::Preloaded("cflinuxfs4".to_owned()))
        );
        for text in [
            "docker:x",
            "docker://host",
            "docker:///",
            "preloaded:",
            "some:rootfs",
            "x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
