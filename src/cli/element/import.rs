//! `import`: data from outside become an image or a volume.

use clap::Args;
use portlayer::element::{Checksum, ImageSpec, Kind, NewElement, Spec, VolumeSpec};

use super::create;
use crate::cli::context::{Context, usage};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::OutputArgs;
use crate::cli::parse::{self, MetadataArgs};

/// Create an image or a volume from data: `create --from` in short
///
/// An image is made from an OCI layout or archive, a docker archive or a layer, a volume from a tar; a directory is
/// read as a tar of itself. `image create` and `volume create` have more flags.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Id of the new image or volume, as in image://images/NAME
    id: String,
    /// Its data: a file, a directory, or - for standard input
    #[arg(value_name = "FILE|DIR|-")]
    from: String,
    /// What the data must add up to: sha256:<64 hex digits>
    #[arg(long, value_name = "SUM")]
    checksum: Option<Checksum>,
    #[command(flatten)]
    metadata: MetadataArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: ImportArgs, context: &Context) -> Outcome {
    let id = usage(parse::any(&args.id))?;
    let spec = match id.kind() {
        Kind::Image => Spec::Image(ImageSpec::default()),
        Kind::Volume => Spec::Volume(VolumeSpec::default()),
        kind => {
            return Err(Failure::usage(format!(
                "{id}: only images and volumes are made from data, not a {kind}"
            )));
        }
    };
    let mut new = NewElement::new(id, spec);
    new.checksum = args.checksum;
    (new.ro, new.rw) = args.metadata.patches();
    create::store(new, Some(&args.from), args.output, context).await
}
