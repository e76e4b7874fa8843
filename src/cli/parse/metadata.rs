//! Metadata on the command line: `--ro k=v`, `--rw k=v`, and `k=v` or `k-` of update.

use clap::Args;
use portlayer::element::Patch;

/// Metadata of a new element.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct MetadataArgs {
    /// Metadata that never changes again (repeat)
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    pub(crate) ro: Vec<(String, Vec<u8>)>,
    /// Metadata that `update` may change (repeat)
    #[arg(long, visible_alias = "label", value_name = "KEY=VALUE", value_parser = entry)]
    pub(crate) rw: Vec<(String, Vec<u8>)>,
}

impl MetadataArgs {
    /// The two maps of a new element.
    pub(crate) fn patches(self) -> (Patch, Patch) {
        let patch = |entries: Vec<(String, Vec<u8>)>| {
            entries
                .into_iter()
                .map(|(key, value)| (key, Some(value)))
                .collect()
        };
        (patch(self.ro), patch(self.rw))
    }
}

/// `KEY=VALUE`.
pub(crate) fn entry(text: &str) -> Result<(String, Vec<u8>), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.as_bytes().to_vec())),
        _ => Err(format!("expected KEY=VALUE, not {text:?}")),
    }
}

/// `KEY=VALUE` sets, `KEY-` deletes.
pub(crate) fn patch_entry(text: &str) -> Result<(String, Option<Vec<u8>>), String> {
    if text.contains('=') {
        return entry(text).map(|(key, value)| (key, Some(value)));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() => Ok((key.to_owned(), None)),
        _ => Err(format!(
            "expected KEY=VALUE to set or KEY- to delete, not {text:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_and_deleting() {
        assert_eq!(
            patch_entry("a=b=c"),
            Ok(("a".to_owned(), Some(b"b=c".to_vec())))
        );
        assert_eq!(patch_entry("a="), Ok(("a".to_owned(), Some(Vec::new()))));
        assert_eq!(
            patch_entry("a-=b"),
            Ok(("a-".to_owned(), Some(b"b".to_vec())))
        );
        assert_eq!(patch_entry("a-b-"), Ok(("a-b".to_owned(), None)));
        for text in ["", "-", "=", "=x", "a"] {
            assert!(patch_entry(text).is_err(), "{text}");
        }
    }
}
