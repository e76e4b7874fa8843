//! Images from registries over the wire.

use std::fmt;

use portlayer::element::{Descriptor, NewElement};
use portlayer::store::{Progress, ProgressSink};
use portlayer_proto::v1;

use crate::connection::request;
use crate::elements::service;
use crate::wire::{self, Fault, Wire};
use crate::{Client, Error};

/// What to pull, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullFrom {
    /// `host[:port]/repository[:tag][@sha256:digest]`; a tag or a digest is needed.
    pub reference: String,
    /// For this call only.
    pub credentials: Option<RegistryCredentials>,
}

/// A user and a password or access token.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryCredentials(***)")
    }
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// The element.
    pub image: Descriptor,
    /// Digest of what the reference named: an index or a manifest.
    pub digest: String,
    /// Digest of the manifest of the node's platform.
    pub manifest: String,
}

impl Client {
    /// Makes an image of what a registry has. The daemon reaches the registry, as its owner configured it. Dropping the
    /// future ends the pull; nothing is left then.
    pub async fn pull(
        &self,
        new: NewElement,
        from: PullFrom,
        progress: Option<ProgressSink>,
    ) -> Result<Pulled, Error> {
        let (element, _) = wire::new_element(new).map_err(Fault::of)?;
        let message = v1::PullRequest {
            element: Some(element),
            reference: from.reference,
            credentials: from.credentials.map(|own| v1::RegistryCredentials {
                user: own.user,
                password: own.password,
            }),
            progress: progress.is_some(),
        };
        let mut service = service(self.channel());
        let call = service.pull(request(message, self.long()));
        let mut answers = self.act("pull", call).await?;
        while let Some(answer) = answers.message().await? {
            match answer.part {
                Some(v1::pull_response::Part::Progress(told)) => {
                    if let Some(sink) = &progress {
                        sink(Progress::from_wire(told)?);
                    }
                }
                Some(v1::pull_response::Part::Pulled(pulled)) => {
                    return Ok(Pulled {
                        image: wire::required("element", pulled.element)?,
                        digest: pulled.digest,
                        manifest: pulled.manifest,
                    });
                }
                None => {}
            }
        }
        Err(Error::Short("pull"))
    }
}
