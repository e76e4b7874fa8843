//! The key and the certificate of a run: a volume of its own, filled once its addresses are known and again before they are over.

use std::io::Cursor;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portlayer::PortLayer;
use portlayer::compose::JoinHow;
use portlayer::copy::CopyOptions;
use portlayer::element::{ElementId, Kind, NewElement, Spec, VolumeSpec};
use tokio_util::task::AbortOnDropHandle;

use super::container::chain;
use super::network::Addresses;
use super::{RunError, Runner};
use crate::identity::{Authority, DIRECTORY};
use crate::plan::{EnvValue, Identity, Plan};

/// After a renewal that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Renews the files for as long as it lives.
pub(super) type Renewal = AbortOnDropHandle<()>;

/// The volume of one run, and what goes into it.
pub(super) struct Issue {
    authority: Arc<Authority>,
    identity: Identity,
    volume: ElementId,
}

impl Runner {
    /// The empty volume of a run that gets a certificate.
    pub(super) async fn identity(
        &self,
        plan: &Plan,
        executor: &ElementId,
    ) -> Result<Option<Issue>, RunError> {
        let (Some(authority), Some(identity)) = (&self.settings.authority, &plan.identity) else {
            return Ok(None);
        };
        let failed = |error: &dyn std::error::Error| {
            tracing::warn!(%executor, error = chain(error), "a run gets no volume for its certificate");
            RunError::Credentials
        };
        let name = format!("runs/{}/identity", executor.name());
        let volume = ElementId::new(Kind::Volume, &self.settings.volumes, &name);
        let volume = volume.map_err(|error| failed(&error))?;
        let new = NewElement::new(volume.clone(), Spec::Volume(VolumeSpec::default()));
        let made = self.layer.create(new).await;
        made.map_err(|error| failed(&error))?;
        Ok(Some(Issue {
            authority: authority.clone(),
            identity: identity.clone(),
            volume,
        }))
    }
}

impl Issue {
    /// How the volume takes part.
    pub(super) fn join(&self) -> (ElementId, JoinHow) {
        (self.volume.clone(), JoinHow::read_only_volume(DIRECTORY))
    }

    /// Fills the volume, and fills it again whenever that is due.
    pub(super) async fn begin(
        self,
        layer: &PortLayer,
        addresses: Vec<IpAddr>,
    ) -> Result<Renewal, RunError> {
        self.fill(layer, &addresses).await.map_err(|error| {
            tracing::warn!(volume = %self.volume, %error, "a run gets no certificate");
            RunError::Credentials
        })?;
        let layer = layer.clone();
        Ok(AbortOnDropHandle::new(tokio::spawn(async move {
            let mut next = self.authority.renewal();
            loop {
                tokio::time::sleep(next).await;
                next = match self.fill(&layer, &addresses).await {
                    Ok(()) => self.authority.renewal(),
                    Err(error) => {
                        tracing::warn!(volume = %self.volume, %error, "a certificate is not renewed");
                        AGAIN
                    }
                };
            }
        })))
    }

    async fn fill(&self, layer: &PortLayer, addresses: &[IpAddr]) -> Result<(), FillError> {
        let (authority, identity) = (self.authority.clone(), self.identity.clone());
        let addresses = addresses.to_vec();
        let issued =
            tokio::task::spawn_blocking(move || authority.issue(&identity, &addresses)).await;
        let tar = issued??.tar();
        let data = Box::pin(Cursor::new(tar));
        let options = CopyOptions::default();
        layer.copy_in(&self.volume, "/", data, &options).await?;
        Ok(())
    }
}

/// Why the files could not be made.
#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error("the thread ended")]
    Thread(#[from] tokio::task::JoinError),
    #[error("issuing failed: {0}")]
    Issue(#[from] openssl::error::ErrorStack),
    #[error("{}", chain(.0))]
    Copy(#[from] portlayer::copy::CopyError),
}

/// What the certificate of a run names beside it: the addresses it is told to be its own.
pub(super) fn own_addresses(plan: &Plan, addresses: &Addresses) -> Vec<IpAddr> {
    let given = addresses.texts();
    let told = plan.forced_env.iter().filter_map(|(_, value)| match value {
        EnvValue::Address(otherwise) if given.is_empty() => Some(otherwise.as_str()),
        _ => None,
    });
    given
        .iter()
        .copied()
        .chain(told)
        .filter_map(|text| text.parse().ok())
        .collect()
}
