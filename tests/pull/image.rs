//! The image that the registry has.

use std::collections::BTreeMap;
use std::path::Path;

use portlayer_runtime::layout::digest;

use super::server::Server;

/// busybox, under the tag `v1` of the repository `a`.
pub(super) struct Image {
    layout: BTreeMap<String, Vec<u8>>,
    /// Digest of its manifest.
    pub(super) manifest: String,
    /// Digest of its layer, the largest blob.
    layer: String,
}

impl Image {
    pub(super) fn new() -> Image {
        let image = portlayer_runtime::layout::busybox(Path::new("/bin/busybox"));
        let layout = image
            .expect("the Debian package busybox-static is needed")
            .layout();
        let index: serde_json::Value = serde_json::from_slice(&layout["index.json"]).unwrap();
        let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let blobs = layout.iter().filter(|(path, _)| path.starts_with("blobs/"));
        let largest = blobs.max_by_key(|(_, bytes)| bytes.len()).unwrap().1;
        Image {
            layer: digest(largest),
            manifest,
            layout,
        }
    }

    /// Gives it to a server.
    pub(super) fn on(&self, server: &Server) {
        let index = "application/vnd.oci.image.index.v1+json";
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        for (path, bytes) in &self.layout {
            let sum = digest(bytes);
            match path.as_str() {
                "oci-layout" => {}
                "index.json" => server.put("/v2/a/manifests/v1", index, bytes),
                _ if sum == self.manifest => {
                    server.put(&format!("/v2/a/manifests/{sum}"), manifest, bytes)
                }
                _ => server.put(
                    &format!("/v2/a/blobs/{sum}"),
                    "application/octet-stream",
                    bytes,
                ),
            }
        }
    }

    /// Where the server has the layer.
    pub(super) fn layer_path(&self) -> String {
        format!("/v2/a/blobs/{}", self.layer)
    }

    /// Bytes of the layer, as they are sent.
    pub(super) fn layer_bytes(&self) -> usize {
        let path = portlayer_runtime::layout::blob_path(&self.layer);
        self.layout[&path].len()
    }
}
