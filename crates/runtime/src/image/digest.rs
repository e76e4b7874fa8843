//! Digests and chain ids.

use portlayer::element::Checksum;
use portlayer::store::StoreError;

use super::fault::{ImageRule, refuse};

/// Checks the form `sha256:<64 lower-case hex digits>`.
pub(super) fn check(document: &str, digest: &str) -> Result<Checksum, StoreError> {
    let canonical = digest
        .parse::<Checksum>()
        .ok()
        .filter(|sum| sum.to_string() == digest);
    canonical.ok_or_else(|| refuse(document, ImageRule::DigestFormat))
}

/// The names containerd gives the snapshots of these layers: the first is its diff id, each further one the sum of
/// "parent's-chain-id diff-id".
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => Checksum::of(format!("{parent} {diff_id}").as_bytes()).to_string(),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_as_the_specification_says() {
        let ids = [
            Checksum::of(b"a").to_string(),
            Checksum::of(b"b").to_string(),
        ];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(
            chain[1],
            Checksum::of(format!("{} {}", ids[0], ids[1]).as_bytes()).to_string()
        );
        assert!(chain_ids(&[]).is_empty());
    }
}
