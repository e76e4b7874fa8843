//! The logs a process can have: those that can be reached where that is required, those the node's owner allows in any case.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use portlayer::log::{LogKind, LogSpec};
use portlayer::runtime::{ProcessPlan, RuntimeError, RuntimeErrorKind, SinkPlan};

use super::Shared;
use crate::io::reach;

/// Whether a destination is on the list of the node's owner: an entry is exactly it, or with a slash at its end everything
/// below.
pub(super) fn allows(list: &[String], spec: &LogSpec) -> Result<(), String> {
    let Some(destination) = spec.destination() else {
        return Ok(());
    };
    let on_it = |entry: &String| match entry.ends_with('/') {
        true => destination.starts_with(entry.as_str()),
        false => destination == *entry,
    };
    match list.iter().any(on_it) {
        true => Ok(()),
        false => Err(format!(
            "{destination} is not in logs.destinations of the node's configuration"
        )),
    }
}

/// The logs of a plan that can be used now. A required one that cannot is an error; another one that is a file of a caller
/// is left out, and a receiver that is away is waited for. Blocks, in a runtime.
pub(super) fn usable(shared: &Shared, plan: &ProcessPlan) -> Result<Vec<SinkPlan>, RuntimeError> {
    let mut usable = Vec::with_capacity(plan.sinks.len());
    for sink in &plan.sinks {
        let allowed = allows(&shared.log_destinations, &sink.spec);
        let refused = match (&sink.spec.kind, allowed) {
            (_, Err(rule)) => Some(rule),
            (LogKind::Path(path), Ok(())) => is_handed(Path::new(path)).err(),
            (_, Ok(())) if sink.required => {
                let reached = tokio::runtime::Handle::current().block_on(reach(&sink.spec));
                reached.err().map(|error| error.to_string())
            }
            _ => None,
        };
        match refused {
            None => usable.push(sink.clone()),
            Some(text) if sink.required => {
                let (kind, log) = (RuntimeErrorKind::LogUnavailable, sink.log.to_string());
                return Err(RuntimeError::new(kind, "reach", log, text));
            }
            Some(text) => tracing::warn!(log = %sink.log, text, "output does not go to a log"),
        }
    }
    Ok(usable)
}

/// A FIFO or a file that is there, without a link on the way to it.
fn is_handed(path: &Path) -> Result<(), String> {
    let real = std::fs::canonicalize(path).map_err(|error| error.to_string())?;
    if real != path {
        return Err("there is a link in its path".to_owned());
    }
    let kind = std::fs::symlink_metadata(path)
        .map_err(|error| error.to_string())?
        .file_type();
    match kind.is_fifo() || kind.is_file() {
        true => Ok(()),
        false => Err("neither a FIFO nor a file".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_the_list_is_reached() {
        let list = [
            "unix:/dev/log".to_owned(),
            "path:/run/collector/".to_owned(),
        ];
        let path = |path: &str| LogSpec::new(LogKind::Path(path.to_owned()));
        assert!(allows(&list, &path("/run/collector/x")).is_ok());
        assert!(allows(&list, &path("/run/collectors")).is_err());
        assert!(allows(&list, &LogSpec::new(LogKind::Null)).is_ok());
        assert!(allows(&[], &path("/run/collector/x")).is_err());
    }

    #[test]
    fn a_handed_file_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().canonicalize().unwrap().join("file");
        assert!(is_handed(&file).is_err());
        std::fs::write(&file, "").unwrap();
        assert_eq!(is_handed(&file), Ok(()));
        let link = file.with_file_name("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(is_handed(&link).is_err() && is_handed(Path::new("/dev/null")).is_err());
    }
}
