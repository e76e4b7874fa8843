//! What a registry wants before it answers (RFC 7235, and the token protocol of the distribution project).

/// A challenge of a registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from a server.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Reads the value of a `WWW-Authenticate` header; `None` = nothing we can do.
pub(crate) fn challenge(value: &str) -> Option<Challenge> {
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest.trim_start();
    while let Some((name, tail)) = rest.split_once('=') {
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => tail.split_at(tail.find(',').unwrap_or(tail.len())),
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            "scope" => scope = Some(value.to_owned()),
            _ => {}
        }
        rest = tail.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer {
        realm: realm?,
        service,
        scope,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            challenge(
                "Bearer realm=\"https://a/token\",service=\"s\", scope=\"repository:a:pull,push\""
            ),
            Some(Challenge::Bearer {
                realm: "https://a/token".into(),
                service: Some("s".into()),
                scope: Some("repository:a:pull,push".into()),
            })
        );
        for text in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer realm=\"x",
            "Bearer service=a",
        ] {
            assert_eq!(challenge(text), None, "{text}");
        }
    }
}
