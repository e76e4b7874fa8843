//! Volumes on an NFS server: one mount for the location, a directory for each volume.
//!
//! On the server: `volumes/<digest>` holds a volume's files, `volumes_metadata/<digest>/id` the element's id, for people
//! and for other port layers that use the same export.

use std::fs;
use std::io;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::errno::Errno;
use nix::mount::MsFlags;
use portlayer::archive::{ExtractOptions, Limits};
use portlayer::element::{DataStream, ElementId, Record, StoreKeys};
use portlayer::store::{MountSource, Put, Store, StoreCapabilities, StoreError, Stored};
use url::Url;

use super::locks::Locks;
use super::populate::{Filled, fill, read_out};
use super::spec_of;
use crate::image::io_failed;
use crate::mount::{available_bytes, ignore_missing, is_mounted, private_directory, unmount};

/// What an `nfs://host/export?uid=&gid=` location names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsTarget {
    /// The server, a name or an address.
    pub host: String,
    /// The exported path, absolute.
    pub export: String,
    /// Owner of new volumes; the server may map it.
    pub uid: u32,
    /// Group of new volumes.
    pub gid: u32,
}

/// Why a text names no NFS location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NfsTargetError {
    /// Not `nfs://host/export`.
    #[error("an NFS location is nfs://host/export?uid=&gid=")]
    Form,
    /// A parameter other than uid and gid, or one that is not a number.
    #[error("bad parameter {0}")]
    Parameter(String),
}

impl std::str::FromStr for NfsTarget {
    type Err = NfsTargetError;

    fn from_str(text: &str) -> Result<NfsTarget, NfsTargetError> {
        let url = Url::parse(text).map_err(|_| NfsTargetError::Form)?;
        let host = url
            .host_str()
            .filter(|h| !h.is_empty())
            .ok_or(NfsTargetError::Form)?
            .to_owned();
        let plain =
            url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        // What ends up in mount options must not hold a comma or anything that had to be escaped.
        let clean = |text: &str| !text.contains([',', '%', '\\', ' ']);
        if url.scheme() != "nfs"
            || !plain
            || url.port().is_some()
            || !clean(url.path())
            || !clean(&host)
        {
            return Err(NfsTargetError::Form);
        }
        let export = if url.path().is_empty() {
            "/"
        } else {
            url.path()
        };
        let mut target = NfsTarget {
            host,
            export: export.to_owned(),
            uid: 0,
            gid: 0,
        };
        for (key, value) in url.query_pairs() {
            let number = value
                .parse()
                .map_err(|_| NfsTargetError::Parameter(key.to_string()))?;
            match key.as_ref() {
                "uid" => target.uid = number,
                "gid" => target.gid = number,
                other => return Err(NfsTargetError::Parameter(other.to_owned())),
            }
        }
        Ok(target)
    }
}

/// Mounts an export. Blocking; may hang as long as the server does, the store gives up before.
pub trait NfsMount: Send + Sync + 'static {
    /// Mounts at an empty directory. Called only when nothing is mounted there.
    ///
    /// # Errors
    /// Whatever it was; the location is unavailable then.
    fn mount(&self, target: &NfsTarget, at: &Path) -> io::Result<()>;
}

/// The kernel's NFS client, version 4.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelNfs;

impl NfsMount for KernelNfs {
    fn mount(&self, target: &NfsTarget, at: &Path) -> io::Result<()> {
        let host = target.host.trim_start_matches('[').trim_end_matches(']');
        let address = (host, 2049)
            .to_socket_addrs()?
            .next()
            .ok_or(io::ErrorKind::HostUnreachable)?
            .ip();
        // soft: a dead server gives an error, not a task that cannot be killed.
        let options = format!("addr={address},clientaddr=0.0.0.0,vers=4,soft,timeo=50,retrans=2");
        let source = format!("{}:{}", target.host, target.export);
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        nix::mount::mount(
            Some(source.as_str()),
            at,
            Some("nfs4"),
            flags,
            Some(options.as_str()),
        )
        .map_err(|errno| match errno {
            Errno::ENODEV => {
                io::Error::new(io::ErrorKind::Unsupported, "this kernel has no NFS client")
            }
            errno => errno.into(),
        })
    }
}

/// A directory of this host in the place of an export: for tests, and for exports that somebody else mounts.
#[derive(Debug, Clone)]
pub struct DirectoryMount(pub PathBuf);

impl NfsMount for DirectoryMount {
    fn mount(&self, _target: &NfsTarget, at: &Path) -> io::Result<()> {
        let flags = MsFlags::MS_BIND;
        Ok(nix::mount::mount(
            Some(&self.0),
            at,
            None::<&str>,
            flags,
            None::<&str>,
        )?)
    }
}

/// Settings of an NFS location.
#[derive(Debug, Clone)]
pub struct NfsConfig {
    /// Server and export.
    pub target: NfsTarget,
    /// Where the export is mounted, below our state directory.
    pub mount_point: PathBuf,
    /// How long the server may take for one operation.
    pub deadline: Duration,
    /// What a data stream may cost.
    pub limits: Limits,
}

/// Volumes on an NFS server.
#[derive(Clone)]
pub struct NfsVolumes {
    config: Arc<NfsConfig>,
    mount: Arc<dyn NfsMount>,
    /// One mount at a time.
    mounting: Arc<tokio::sync::Mutex<()>>,
    locks: Locks,
}

impl NfsVolumes {
    /// A store; mounts at the first use.
    pub fn new(config: NfsConfig, mount: Arc<dyn NfsMount>) -> NfsVolumes {
        NfsVolumes {
            config: Arc::new(config),
            mount,
            mounting: Arc::default(),
            locks: Locks::default(),
        }
    }

    /// Runs blocking work on the mounted export, or gives up. Work that hangs keeps its thread, which is why the
    /// kernel mount is soft.
    async fn on_export<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let point = self.config.mount_point.clone();
        self.within(async {
            self.ensure_mounted().await?;
            crate::image::blocking("use export", move || work(&point)).await?
        })
        .await
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.config.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unavailable(format!(
                "{} did not answer within {:?}",
                self.config.target.host, self.config.deadline
            ))),
        }
    }

    async fn ensure_mounted(&self) -> Result<(), StoreError> {
        let _one = self.mounting.lock().await;
        let (mount, config) = (self.mount.clone(), self.config.clone());
        crate::image::blocking("mount export", move || {
            let point = &config.mount_point;
            if is_mounted(point)? {
                return Ok(());
            }
            private_directory(point)?;
            mount.mount(&config.target, point).map_err(|e| {
                StoreError::Unavailable(format!(
                    "{}:{}: {e}",
                    config.target.host, config.target.export
                ))
            })
        })
        .await?
    }

    /// Unmounts the export. Idempotent; the next use mounts again.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a volume is used.
    pub async fn close(&self) -> Result<(), StoreError> {
        let _one = self.mounting.lock().await;
        let point = self.config.mount_point.clone();
        crate::image::blocking("unmount export", move || unmount(&point)).await?
    }
}

fn volume_path(export: &Path, digest_hex: &str) -> PathBuf {
    export.join("volumes").join(digest_hex)
}

fn metadata_path(export: &Path, digest_hex: &str) -> PathBuf {
    export.join("volumes_metadata").join(digest_hex)
}

fn staging_path(export: &Path, digest_hex: &str) -> PathBuf {
    export
        .join("volumes_metadata")
        .join(format!("{digest_hex}.new"))
}

/// Removes whatever there is of a volume.
fn destroy(export: &Path, digest_hex: &str) -> Result<(), StoreError> {
    for path in [
        volume_path(export, digest_hex),
        staging_path(export, digest_hex),
        metadata_path(export, digest_hex),
    ] {
        ignore_missing(fs::remove_dir_all(&path)).map_err(|e| io_failed("remove", &path, e))?;
    }
    Ok(())
}

#[async_trait]
impl Store for NfsVolumes {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities {
            parent_image: false,
            parent_volume: false,
            data: true,
            bounded: false,
            persistent: true,
        }
    }

    async fn put(&self, mut put: Put<'_>) -> Result<Stored, StoreError> {
        let spec = spec_of(put.spec)?.clone();
        if put.parent.is_some() {
            return Err(StoreError::InvalidParent(
                "an NFS location does not support parents",
            ));
        }
        if spec.size_bytes > 0 {
            return Err(StoreError::Unsupported("a bound on an NFS volume"));
        }
        let (digest_hex, element) = (put.id.digest_hex(), put.id.to_string());
        let held = self.locks.hold(&digest_hex).await;
        let name = digest_hex.clone();
        let staging = self
            .on_export(move |export| {
                destroy(export, &name)?;
                let have_bytes = available_bytes(export)?;
                if have_bytes < spec.freespace_bytes {
                    return Err(StoreError::InsufficientSpace {
                        need_bytes: spec.freespace_bytes,
                        have_bytes,
                    });
                }
                for path in [
                    export.join("volumes"),
                    staging_path(export, &name),
                    metadata_path(export, &name),
                ] {
                    fs::create_dir_all(&path).map_err(|e| io_failed("make", &path, e))?;
                }
                let note = metadata_path(export, &name).join("id");
                fs::write(&note, &element).map_err(|e| io_failed("write", &note, e))?;
                Ok(staging_path(export, &name))
            })
            .await;
        let result = async {
            let staging = staging?;
            let filled = match put.data.take() {
                // Bounded by the data's own limits, not by the deadline of one operation.
                Some(data) => {
                    let options = ExtractOptions {
                        limits: self.config.limits,
                        keep_setid: false,
                        ..ExtractOptions::default()
                    };
                    fill(
                        &staging,
                        data,
                        put.checksum,
                        options,
                        put.progress.clone(),
                        held.clone(),
                    )
                    .await?
                }
                None => Filled::default(),
            };
            let mut spec = spec_of(put.spec)?.clone();
            if (spec.uid, spec.gid) == (0, 0) {
                (spec.uid, spec.gid) = (self.config.target.uid, self.config.target.gid);
            }
            let name = digest_hex.clone();
            self.on_export(move |export| {
                super::populate::set_root(&staging, &spec, filled.checksum.is_some())?;
                let path = volume_path(export, &name);
                fs::rename(&staging, &path).map_err(|e| io_failed("publish", &path, e))
            })
            .await?;
            Ok(filled)
        };
        match result.await {
            Ok(filled) => Ok(Stored {
                checksum: filled.checksum,
                size: filled.size,
                ..Stored::default()
            }),
            Err(error @ StoreError::Unavailable(_)) => Err(error),
            Err(error) => {
                let name = digest_hex.clone();
                if let Err(undo) = self.on_export(move |export| destroy(export, &name)).await {
                    tracing::warn!(id = %put.id, %undo, "a volume that failed to fill could not be removed");
                }
                Err(error)
            }
        }
    }

    async fn remove(&self, id: &ElementId, _keys: &StoreKeys) -> Result<(), StoreError> {
        self.sweep(&id.digest_hex()).await
    }

    async fn export(&self, record: &Record) -> Result<DataStream, StoreError> {
        let digest_hex = record.id.digest_hex();
        let path = self
            .on_export(move |export| existing(volume_path(export, &digest_hex)))
            .await?;
        Ok(read_out(path, || Ok(())))
    }

    async fn attach(
        &self,
        record: &Record,
        _executor: &ElementId,
    ) -> Result<MountSource, StoreError> {
        let digest_hex = record.id.digest_hex();
        let path = self
            .on_export(move |export| existing(volume_path(export, &digest_hex)))
            .await?;
        Ok(MountSource::Path(path))
    }

    async fn detach(
        &self,
        _id: &ElementId,
        _keys: &StoreKeys,
        _executor: &ElementId,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ensure_freespace(
        &self,
        _record: &Record,
        freespace_bytes: u64,
    ) -> Result<(), StoreError> {
        self.on_export(move |export| {
            let have_bytes = available_bytes(export)?;
            if have_bytes < freespace_bytes {
                return Err(StoreError::InsufficientSpace {
                    need_bytes: freespace_bytes,
                    have_bytes,
                });
            }
            Ok(())
        })
        .await
    }

    fn own_places(&self) -> Vec<PathBuf> {
        vec![self.config.mount_point.clone()]
    }

    async fn list(&self) -> Result<Vec<String>, StoreError> {
        self.on_export(|export| {
            let mut names = Vec::new();
            for directory in ["volumes", "volumes_metadata"] {
                let path = export.join(directory);
                let failed = |e| io_failed("list", &path, e);
                let entries = match fs::read_dir(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    entries => entries.map_err(failed)?,
                };
                for entry in entries {
                    let name = entry.map_err(failed)?.file_name();
                    let name = name.to_string_lossy();
                    names.push(name.strip_suffix(".new").unwrap_or(&name).to_owned());
                }
            }
            names.sort();
            names.dedup();
            Ok(names)
        })
        .await
    }

    async fn sweep(&self, digest_hex: &str) -> Result<(), StoreError> {
        // A put that was dropped may still be writing; it ends at its next read.
        let _held = self
            .within(async { Ok(self.locks.hold(digest_hex).await) })
            .await?;
        let name = digest_hex.to_owned();
        self.on_export(move |export| destroy(export, &name)).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.on_export(|export| available_bytes(export).map(drop))
            .await
    }
}

fn existing(path: PathBuf) -> Result<PathBuf, StoreError> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => Ok(path),
        Ok(_) => Err(StoreError::Missing(path.display().to_string())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Missing(path.display().to_string()))
        }
        Err(e) => Err(io_failed("look at", &path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read() {
        let target: NfsTarget = "nfs://server/exports/a?uid=1000&gid=100".parse().unwrap();
        assert_eq!(
            target,
            NfsTarget {
                host: "server".into(),
                export: "/exports/a".into(),
                uid: 1000,
                gid: 100
            }
        );
        assert_eq!("nfs://h".parse::<NfsTarget>().unwrap().export, "/");
        for bad in [
            "http://h/x",
            "nfs:///x",
            "nfs://u@h/x",
            "nfs://h:1/x",
            "nfs://h/a,soft",
            "nfs://h/a#b",
            "x",
        ] {
            assert_eq!(bad.parse::<NfsTarget>(), Err(NfsTargetError::Form), "{bad}");
        }
        for bad in ["nfs://h/x?uid=-1", "nfs://h/x?vers=3"] {
            assert!(
                matches!(bad.parse::<NfsTarget>(), Err(NfsTargetError::Parameter(_))),
                "{bad}"
            );
        }
    }

    struct Hanging;

    impl NfsMount for Hanging {
        fn mount(&self, _target: &NfsTarget, _at: &Path) -> io::Result<()> {
            std::thread::sleep(Duration::from_millis(300));
            Err(io::ErrorKind::TimedOut.into())
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_an_unavailable_location() {
        let dir = tempfile::tempdir().unwrap();
        let config = NfsConfig {
            target: "nfs://192.0.2.1/x".parse().unwrap(),
            mount_point: dir.path().join("nfs"),
            deadline: Duration::from_millis(20),
            limits: Limits::default(),
        };
        let store = NfsVolumes::new(config, Arc::new(Hanging));
        assert!(matches!(
            store.health().await,
            Err(StoreError::Unavailable(_))
        ));
        assert!(matches!(
            store.list().await,
            Err(StoreError::Unavailable(_))
        ));
    }
}
