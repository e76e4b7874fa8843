//! Images from registries.

use std::io::Read;

use clap::Args;
use portlayer::element::NewElement;
use portlayer_client::{PullFrom, RegistryCredentials};
use portlayer_registry::Reference;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::{OutputArgs, Reporter};
use crate::cli::rows;

/// What the name of an image in a registry begins with.
pub(crate) const SCHEME: &str = "docker://";

/// The longest password that is read.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

/// What to pull.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PullFlags {
    /// Pull it from a registry: docker://HOST[:PORT]/NAME[:TAG][@DIGEST]
    #[arg(long, value_name = "REFERENCE", value_parser = reference, conflicts_with_all = ["from", "checksum", "parent"])]
    pull: Option<String>,
    #[command(flatten)]
    credentials: CredentialFlags,
}

impl PullFlags {
    /// The source; `None` when nothing is pulled.
    pub(crate) fn from(&self) -> Result<Option<PullFrom>, Failure> {
        match &self.pull {
            Some(reference) => self.credentials.with(reference).map(Some),
            None => self.credentials.refuse("--pull").map(|()| None),
        }
    }
}

/// As whom. A password is never an argument: those are seen by everybody on the host.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct CredentialFlags {
    /// User at the registry
    #[arg(long, value_name = "USER")]
    pull_user: Option<String>,
    /// Read the password or token from standard input, to its end
    #[arg(long, conflicts_with = "pull_password_env")]
    pull_password_stdin: bool,
    /// Take the password or token from this environment variable
    #[arg(long, value_name = "NAME")]
    pull_password_env: Option<String>,
}

impl CredentialFlags {
    /// Refuses credentials nobody would use.
    pub(crate) fn refuse(&self, only_for: &str) -> Result<(), Failure> {
        match *self == Self::default() {
            true => Ok(()),
            false => Err(Failure::usage(format!(
                "--pull-user and its password are for {only_for}"
            ))),
        }
    }

    /// The source with the credentials, which are read now.
    pub(crate) fn with(&self, reference: &str) -> Result<PullFrom, Failure> {
        let password = match (&self.pull_password_env, self.pull_password_stdin) {
            (Some(name), _) => {
                let unset =
                    || Failure::usage(format!("--pull-password-env: {name:?} is not set here"));
                Some(std::env::var(name).map_err(|_| unset())?)
            }
            (None, true) => Some(read_password()?),
            (None, false) => None,
        };
        let credentials = match (self.pull_user.clone(), password) {
            (Some(user), Some(password)) => Some(RegistryCredentials { user, password }),
            (None, None) => None,
            (Some(_), None) => {
                let rule = "--pull-user needs --pull-password-stdin or --pull-password-env";
                return Err(Failure::usage(rule));
            }
            (None, Some(_)) => return Err(Failure::usage("a password needs --pull-user")),
        };
        Ok(PullFrom {
            reference: reference.to_owned(),
            credentials,
        })
    }
}

fn read_password() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_PASSWORD_BYTES)
        .read_to_string(&mut text)?;
    // `echo` adds one.
    let password = text.strip_suffix('\n').unwrap_or(&text);
    match password.is_empty() {
        true => Err(Failure::usage(
            "--pull-password-stdin: standard input is empty",
        )),
        false => Ok(password.to_owned()),
    }
}

/// A reference without its scheme.
pub(crate) fn reference(text: &str) -> Result<String, String> {
    let reference = text.strip_prefix(SCHEME);
    let reference = reference.ok_or_else(|| format!("a reference begins with {SCHEME}"))?;
    let read: Reference = reference.parse().map_err(|error| format!("{error}"))?;
    Ok(read.to_string())
}

/// Pulls an image, with a progress bar over what comes, and shows it.
pub(super) async fn store(
    new: NewElement,
    from: PullFrom,
    output: OutputArgs,
    context: &Context,
) -> Outcome {
    let id = new.id.clone();
    context
        .with_client(async move |client| {
            let reporter = Reporter::new(context.progress, id.as_str(), None);
            let pulled = client.pull(new, from, Some(reporter.sink())).await;
            drop(reporter);
            let image = pulled?.image;
            context
                .out(output)
                .one(&image, id.as_str(), &rows::details(&image))?;
            Ok(Exit::OK)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        pull: PullFlags,
        #[arg(long)]
        from: Option<String>,
        #[arg(long)]
        checksum: Option<String>,
        #[arg(long)]
        parent: Option<String>,
    }

    fn line(args: &[&str]) -> Result<Line, clap::Error> {
        Line::try_parse_from(["x"].iter().chain(args))
    }

    #[test]
    fn a_reference_needs_scheme_host_and_tag() {
        let digest = format!("docker://r.example/a@sha256:{}", "0".repeat(64));
        for good in ["docker://localhost:5000/a/b:1", digest.as_str()] {
            let from = line(&["--pull", good])
                .unwrap()
                .pull
                .from()
                .unwrap()
                .unwrap();
            assert_eq!(format!("docker://{}", from.reference), good);
        }
        for bad in [
            "busybox:1",
            "docker://busybox:1",
            "docker://r.example/a",
            "docker://u:p@r.example/a:1",
        ] {
            assert!(line(&["--pull", bad]).is_err(), "{bad}");
        }
        assert!(line(&["--pull", "docker://r.example/a:1", "--from", "x"]).is_err());
    }

    #[test]
    fn user_and_password_come_together_and_only_with_a_pull() {
        let pull = ["--pull", "docker://r.example/a:1"];
        let refused = |args: &[&str]| line(args).unwrap().pull.from().unwrap_err().text(false);
        assert!(refused(&["--pull-user", "u"]).contains("--pull"));
        assert!(refused(&[&pull[..], &["--pull-user", "u"]].concat()).contains("--pull-password"));
        let unset = [
            &pull[..],
            &[
                "--pull-user",
                "u",
                "--pull-password-env",
                "PORTLAYER_TEST_NOT_SET",
            ],
        ]
        .concat();
        assert!(refused(&unset).contains("PORTLAYER_TEST_NOT_SET"));
        // Whatever the environment of a test has in it.
        let set = [
            &pull[..],
            &["--pull-user", "u", "--pull-password-env", "PATH"],
        ]
        .concat();
        let own = line(&set).unwrap().pull.from().unwrap().unwrap();
        let path = std::env::var("PATH").unwrap();
        assert!(!format!("{own:?}").contains(&path));
        assert_eq!(own.credentials.unwrap().password, path);
    }
}
