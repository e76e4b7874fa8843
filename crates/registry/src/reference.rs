//! Names of images in registries.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// `host[:port]/repository[:tag][@sha256:digest]`. The host must be written; without tag and digest it is refused: there
/// is no `latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Not a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// It does not begin with a host.
    #[error("a reference begins with the host of its registry")]
    Host,
    /// The repository breaks the rules of the distribution specification.
    #[error("a repository is lower-case words joined by . _ - and /")]
    Repository,
    /// The tag breaks them.
    #[error("a tag is at most 128 of A-Z a-z 0-9 _ . - and does not begin with . or -")]
    Tag,
    /// The digest is not one.
    #[error("a digest is sha256: and 64 lower-case hex digits")]
    Digest,
    /// Neither tag nor digest.
    #[error("a reference needs a tag or a digest")]
    Open,
}

impl Reference {
    /// Host of the registry, with its port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Digest, where it is said.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What is asked for: the digest, else the tag.
    pub(crate) fn wanted(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or_default()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (host, path) = rest.split_once('/').ok_or(ReferenceError::Host)?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        let names_a_host = host.contains(['.', ':']) || host == "localhost";
        let in_host =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if !names_a_host || host.len() > 260 || !host.chars().all(in_host) {
            return Err(ReferenceError::Host);
        }
        let word = |word: &str| {
            let in_word = |c: char| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-')
            };
            word.chars().all(in_word)
                && word.starts_with(|c: char| c.is_ascii_alphanumeric())
                && word.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        if repository.len() > 255 || !repository.split('/').all(word) {
            return Err(ReferenceError::Repository);
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag);
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(ReferenceError::Digest);
        }
        if tag.is_none() && digest.is_none() {
            return Err(ReferenceError::Open);
        }
        Ok(Reference {
            host: host.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
        && !tag.starts_with(['.', '-'])
}

/// Whether this is a digest we can verify.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in [
            "registry.example/a/b:1.0",
            "localhost:5000/a:latest",
            "127.0.0.1:5000/a_b-c.d:v",
            &format!("registry.example/a@{digest}"),
            &format!("registry.example/a:1@{digest}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let refused = |text: &str| text.parse::<Reference>().unwrap_err();
        assert_eq!(refused("busybox:1"), ReferenceError::Host);
        assert_eq!(refused("library/busybox:1"), ReferenceError::Host);
        assert_eq!(refused("user@host.example/a:1"), ReferenceError::Host);
        assert_eq!(refused("host.example/a"), ReferenceError::Open);
        assert_eq!(refused("host.example/A:1"), ReferenceError::Repository);
        assert_eq!(refused("host.example/../a:1"), ReferenceError::Repository);
        assert_eq!(refused("host.example/a//b:1"), ReferenceError::Repository);
        assert_eq!(refused("host.example/a:"), ReferenceError::Tag);
        assert_eq!(refused("host.example/a:x?y"), ReferenceError::Tag);
        assert_eq!(refused("host.example/a@sha256:12"), ReferenceError::Digest);
        assert_eq!(refused("host.example/a@md5:12"), ReferenceError::Digest);
    }
}
