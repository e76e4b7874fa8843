//! `ElementsService.Pull`: an image from a registry.

use std::sync::Arc;

use futures::Stream;
use portlayer::PortLayer;
use portlayer::error::ErrorKind;
use portlayer::store::ProgressSink;
use portlayer_client::wire::{Fault, Wire, WireError};
use portlayer_proto::v1;
use portlayer_registry::{Credentials, Reference};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use super::elements::{PROGRESS, element, new_element};
use super::{bad, tell_revision};
use crate::pull::Pulls;

/// Begins a pull; it ends when it is done or nobody listens any more.
pub(super) fn answers(
    layer: PortLayer,
    pulls: Option<Pulls>,
    message: v1::PullRequest,
) -> Result<impl Stream<Item = Result<v1::PullResponse, Status>> + use<>, Status> {
    use v1::pull_response::Part;
    let part = |part| v1::PullResponse { part: Some(part) };
    let Some(pulls) = pulls else {
        let text = "this server pulls no images";
        return Err(Fault::new(ErrorKind::Unimplemented, "pull", text).into_status());
    };
    let new = new_element("element", message.element)?;
    let reference: Reference = message.reference.parse().map_err(|error| {
        // Named by its place alone: somebody may have written a password into it.
        let rule: &str = match error {
            portlayer_registry::ReferenceError::Host => "begins with the host of its registry",
            portlayer_registry::ReferenceError::Repository => "not a repository",
            portlayer_registry::ReferenceError::Tag => "not a tag",
            portlayer_registry::ReferenceError::Digest => "not a sha256 digest",
            portlayer_registry::ReferenceError::Open => "a tag or a digest is needed",
        };
        let field = "reference".to_owned();
        bad(WireError::Invalid { field, rule })
    })?;
    let credentials = message.credentials.map(|own| Credentials {
        user: own.user,
        password: own.password,
    });
    let (answers, answered) = mpsc::channel(PROGRESS);
    let progress = message.progress.then(|| {
        let answers = answers.clone();
        let sink: ProgressSink = Arc::new(move |progress: portlayer::store::Progress| {
            // What nobody has read yet is old news already.
            let _ = answers.try_send(Ok(part(Part::Progress(progress.into_wire()))));
        });
        sink
    });
    let work = async move {
        let pulled = pulls.pull(&layer, new, &reference, credentials.as_ref(), progress);
        let pulled = tokio::select! {
            pulled = pulled => pulled,
            () = answers.closed() => return,
        };
        let answer = match pulled {
            Ok(pulled) => {
                tell_revision(pulled.image.revision);
                Ok(part(Part::Pulled(v1::Pulled {
                    element: element(pulled.image),
                    digest: pulled.digest,
                    manifest: pulled.manifest,
                })))
            }
            Err(error) => Err(error.into_fault().into_status()),
        };
        // The caller may have gone; the image is made all the same.
        let _ = answers.send(answer).await;
    };
    tokio::spawn(work.instrument(tracing::Span::current()));
    Ok(ReceiverStream::new(answered))
}
