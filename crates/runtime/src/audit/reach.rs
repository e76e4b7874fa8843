//! What the collector of containerd keeps for an image: the same walk over the same labels, so that a layer two images
//! share belongs to the one that is left when the other is deleted.

use std::collections::{BTreeMap, HashMap};

/// Label prefix of a reference to content; anything may follow.
const CONTENT: &str = "containerd.io/gc.ref.content";
/// Label prefix of a reference to a snapshot.
const SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

/// Everything the walk needs, as the engine lists it.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Owner of an image and the digest of its manifest.
    pub(super) images: Vec<(String, String)>,
    /// Labels of content, by digest.
    pub(super) content: HashMap<String, HashMap<String, String>>,
    /// Parent of a snapshot, by name; empty = none.
    pub(super) parents: HashMap<String, String>,
}

/// An owner for each digest and each snapshot name that an image keeps.
pub(super) fn owners(graph: &Graph) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    for (owner, manifest) in &graph.images {
        let mut open = vec![manifest.clone()];
        while let Some(name) = open.pop() {
            // Shared parts were walked for another owner, with all they lead to.
            if owners.contains_key(&name) {
                continue;
            }
            owners.insert(name.clone(), owner.clone());
            let labels = graph.content.get(&name).into_iter().flatten();
            open.extend(
                labels
                    .filter(|(key, _)| key.starts_with(CONTENT) || key.starts_with(SNAPSHOT))
                    .map(|(_, value)| value.clone()),
            );
            open.extend(
                graph
                    .parents
                    .get(&name)
                    .filter(|parent| !parent.is_empty())
                    .cloned(),
            );
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> HashMap<String, String> {
        of.iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn an_image_keeps_its_manifest_layers_and_the_whole_chain_and_nothing_else() {
        let graph = Graph {
            images: vec![("app".into(), "m".into())],
            content: HashMap::from([
                (
                    "m".into(),
                    labels(&[
                        ("containerd.io/gc.ref.content.config", "c"),
                        ("containerd.io/gc.ref.content.l.0", "l"),
                        ("portlayer.element", "x"),
                    ]),
                ),
                (
                    "c".into(),
                    labels(&[("containerd.io/gc.ref.snapshot.overlayfs", "top")]),
                ),
                ("stray".into(), labels(&[])),
            ]),
            parents: HashMap::from([
                ("top".into(), "base".into()),
                ("base".into(), String::new()),
                ("other".into(), "base".into()),
            ]),
        };
        let owners = owners(&graph);
        assert_eq!(
            owners.keys().collect::<Vec<_>>(),
            ["base", "c", "l", "m", "top"]
        );
        assert!(owners.values().all(|owner| owner == "app"));
    }
}
