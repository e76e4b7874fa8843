//! The root file system of a run: an image of the node, or one of a registry that becomes an image of the node.

use portlayer::element::{Body, Descriptor, ElementId, ImageSpec, NewElement, Spec};
use portlayer::error::{CreateError, ReadError};
use portlayer_registry::{Platform, Reference};

use super::container::chain;
use super::{RunError, Runner};
use crate::plan::{Credentials, Root};

/// An image that is on the node.
pub(super) struct Base {
    pub(super) image: ElementId,
    /// Environment the image sets.
    pub(super) env: Vec<(String, String)>,
    /// Bytes of its layers that count against the disk limit: of an image of a registry all, of the operator's none.
    counted_bytes: u64,
}

impl Base {
    /// What of a disk limit is left for the run. The texts are those of Diego's image plugin.
    pub(super) fn left_of(&self, limit: Option<u64>) -> Result<Option<u64>, RunError> {
        let Some(limit) = limit else {
            return Ok(None);
        };
        match limit.checked_sub(self.counted_bytes) {
            Some(left) if left > 0 => Ok(Some(left)),
            _ => Err(RunError::Container(format!(
                "layers exceed disk quota {}/{limit} bytes",
                self.counted_bytes
            ))),
        }
    }
}

impl Runner {
    /// The image of a root. One of a registry is pulled when the node does not have it.
    pub(super) async fn root(&self, root: &Root) -> Result<Base, RunError> {
        let (image, of_registry) = match root {
            Root::Image(image) => (image, false),
            Root::Unknown { .. } => return Err(RunError::Root),
            Root::Registry { image, .. } => (image, true),
        };
        let found = match (self.layer.read(image).await, root) {
            (Ok(found), _) => found,
            (
                Err(ReadError::NotFound { .. }),
                Root::Registry {
                    reference,
                    credentials,
                    ..
                },
            ) => self.pull(reference, image, credentials.as_ref()).await?,
            (Err(ReadError::NotFound { .. }), _) => return Err(RunError::Root),
            (Err(error), _) => return Err(RunError::Container(chain(&error))),
        };
        let counted_bytes = if of_registry { found.size } else { 0 };
        match found.body {
            Body::Image(body) => Ok(Base {
                image: image.clone(),
                env: body.defaults.env.clone(),
                counted_bytes,
            }),
            _ => Err(RunError::Root),
        }
    }

    async fn pull(
        &self,
        reference: &str,
        image: &ElementId,
        credentials: Option<&Credentials>,
    ) -> Result<Descriptor, RunError> {
        let Some(config) = &self.settings.registries else {
            let text =
                format!("{reference} is not on this node as {image} and it asks no registry");
            return Err(RunError::Container(text));
        };
        let failed = |error: &dyn std::error::Error| RunError::Container(chain(error));
        let parsed: Reference = reference.parse().map_err(|error| failed(&error))?;
        let credentials = credentials.map(|credentials| portlayer_registry::Credentials {
            user: credentials.username.clone(),
            password: credentials.password.clone(),
        });
        let platform = Platform {
            os: "linux".to_owned(),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
        };
        let staging = self.fetcher.directory();
        let pulled = portlayer_registry::pull(
            config,
            &parsed,
            credentials.as_ref(),
            &platform,
            staging,
            &|_| {},
        );
        let pulled = pulled.await.map_err(|error| failed(&error))?;
        let new = NewElement::new(image.clone(), Spec::Image(ImageSpec::default()))
            .ro("registry.reference", reference)
            .ro("registry.digest", pulled.digest.as_str())
            .data(pulled.archive);
        match self.layer.create(new).await {
            Ok(_) | Err(CreateError::AlreadyExists { .. }) => {}
            Err(error) => return Err(failed(&error)),
        }
        self.layer.read(image).await.map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_a_registry_count_and_the_operators_do_not() {
        let base = |counted_bytes| Base {
            image: "image://images/x".parse().unwrap(),
            env: Vec::new(),
            counted_bytes,
        };
        assert_eq!(base(0).left_of(Some(10)).unwrap(), Some(10));
        assert_eq!(base(4).left_of(Some(10)).unwrap(), Some(6));
        assert_eq!(base(4).left_of(None).unwrap(), None);
        assert_eq!(
            base(11).left_of(Some(10)).unwrap_err().to_string(),
            "failed to create container: layers exceed disk quota 11/10 bytes"
        );
    }
}
