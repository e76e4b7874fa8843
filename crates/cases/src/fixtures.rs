//! The fixtures that the README beside the cases describes.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;

use anyhow::{Context, Result};
use portlayer::archive::TarBuilder;
use portlayer_runtime::layout;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nvcap:x:2000:2000::/home/vcap:/bin/sh\nalice:x:3000:3000::/home/alice:/bin/sh\n";
const GROUP: &str = "root:x:0:\nvcap:x:2000:\nalice:x:3000:\n";
const ANNOUNCE: &str = "#!/bin/sh\necho announced\n";
const LAUNCHER: &str = "#!/bin/sh\ncd \"$HOME/$1\" && shift && exec sh -c \"$*\"\n";
const BUILDER: &str = r#"#!/bin/sh
for arg in "$@"; do
  case "$arg" in
    -outputDroplet=*) echo droplet > "${arg#*=}" ;;
    -outputBuildArtifactsCache=*) echo cache > "${arg#*=}" ;;
    -outputMetadata=*) printf '%s' '{"lifecycle_type":"buildpack","process_types":{"web":"run"}}' > "${arg#*=}" ;;
  esac
done
"#;

/// Debian's busybox has an `nc` without `-z`: a connection that is closed at once is the same.
const NC: &str = r#"#!/bin/sh
zero=; wait=5
while [ $# -gt 0 ]; do
  case "$1" in
    -z) zero=1; shift ;;
    -w) wait=$2; shift 2 ;;
    *) break ;;
  esac
done
[ -n "$zero" ] && exec busybox nc -w "$wait" "$@" -e /bin/true
exec busybox nc -w "$wait" "$@"
"#;

/// What the fixture builder writes as its metadata.
pub(crate) const BUILDER_METADATA: &str =
    r#"{"lifecycle_type":"buildpack","process_types":{"web":"run"}}"#;

/// The root file system: a busybox with users, as a layer.
pub(crate) fn root_file_system() -> Result<Vec<u8>> {
    let busybox = Path::new("/bin/busybox");
    let binary = std::fs::read(busybox).context("the Debian package busybox-static is needed")?;
    let mut tar = TarBuilder::new();
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("var", 0o755),
    ] {
        tar = tar.dir(path, mode);
    }
    tar = tar
        .file("bin/busybox", 0o755, &binary)
        .file("etc/passwd", 0o644, PASSWD.as_bytes())
        .file("etc/group", 0o644, GROUP.as_bytes());
    for applet in layout::applets(busybox)? {
        if applet == "busybox" {
            continue;
        }
        tar = match applet.as_str() {
            // Usable by a normal user.
            "nc" => tar.file("bin/nc", 0o755, NC.as_bytes()),
            "ping" => tar.file("bin/ping", 0o4755, &binary),
            applet => tar.symlink(&format!("bin/{applet}"), "busybox"),
        };
    }
    let tar = tar
        .owner(2000, 2000)
        .dir("home/vcap", 0o755)
        .owner(3000, 3000)
        .dir("home/alice", 0o755);
    Ok(tar.finish())
}

/// What the file server serves.
pub(crate) fn files() -> Result<BTreeMap<String, Vec<u8>>> {
    let tar = |files: &[(&str, &str)]| {
        let build =
            |tar: TarBuilder, (path, text): &(&str, &str)| tar.file(path, 0o755, text.as_bytes());
        files.iter().fold(TarBuilder::new(), build).finish()
    };
    Ok(BTreeMap::from([
        (
            "announce.tgz".to_owned(),
            gzip(&tar(&[("announce", ANNOUNCE)]))?,
        ),
        ("announce.tar".to_owned(), tar(&[("announce", ANNOUNCE)])),
        ("announce.zip".to_owned(), zip(&[("announce", ANNOUNCE)])?),
        (
            "lifecycle.tgz".to_owned(),
            gzip(&tar(&[("launcher", LAUNCHER), ("builder", BUILDER)]))?,
        ),
        (
            "droplet.tgz".to_owned(),
            gzip(
                &TarBuilder::new()
                    .dir("app", 0o755)
                    .file("app/hello.txt", 0o644, b"hello\n")
                    .finish(),
            )?,
        ),
        (
            "app.zip".to_owned(),
            zip(&[("Procfile", "web: run\n"), ("run", "#!/bin/sh\n")])?,
        ),
    ]))
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(bytes)?;
    Ok(packed.finish()?)
}

fn zip(files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut packed = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (path, text) in files {
        packed.start_file(
            *path,
            zip::write::SimpleFileOptions::default().unix_permissions(0o755),
        )?;
        packed.write_all(text.as_bytes())?;
    }
    Ok(packed.finish()?.into_inner())
}
