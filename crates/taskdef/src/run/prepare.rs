//! Preparing a run: elements, then one commit that makes the container.

use std::io::{Cursor, Seek, SeekFrom};
use std::sync::atomic::AtomicU32;

use portlayer::archive::{Limits as ArchiveLimits, TarBuilder};
use portlayer::compose::{BindHow, JoinHow};
use portlayer::element::{ElementId, Kind, NewElement, Spec, VolumeSpec};
use portlayer::error::CreateError;
use portlayer::store::Access;
use portlayer::task::{ExecutorSpec, Isolation, Limits, LogChoice, StopSpec, TaskSpec};
use tokio_util::sync::CancellationToken;

use super::container::{Container, ContainerError, chain};
use super::identity::{Issue, own_addresses};
use super::image::Base;
use super::{Feature, RunError, Runner, network};
use crate::action::ActionError;
use crate::die;
use crate::fetch::{FetchError, Packing, packing, size, tar_of_zip};
use crate::identity::environment;
use crate::log::Streamer;
use crate::plan::{Archive, Mount, MountSource, Plan};

/// The processes of the container itself: init and the waiting task (and one that is just being started by the OCI
/// runtime). Diego counts its pause process as one; ours are not the task's concern.
const OWN_PIDS: u32 = 2;

/// A run whose image, executor and waiting task are there, and nothing is joined yet.
pub(super) struct Begun {
    base: Base,
    hold: ElementId,
}

impl Runner {
    /// Makes the first elements of a run; nothing is started.
    pub(super) async fn begin(&self, plan: &Plan, executor: &ElementId) -> Result<Begun, RunError> {
        self.check_features(plan)?;
        let base = self.root(&plan.root).await?;
        let disk_bytes = base.left_of(plan.limits.disk_bytes)?;
        die::at("run.before-executor");
        let elements = self.elements(plan, executor, disk_bytes).await;
        let hold = elements.map_err(|error| RunError::Container(error.to_string()))?;
        Ok(Begun { base, hold })
    }

    /// Makes the container of a plan.
    pub(super) async fn prepare(
        &self,
        plan: &Plan,
        begun: Begun,
        executor: &ElementId,
        log: &Streamer,
        cancel: &CancellationToken,
    ) -> Result<Container, RunError> {
        let Begun { base, hold } = begun;
        die::at("run.before-volumes");
        let mut volumes = self.mounts(plan, executor, log, cancel).await?;
        let identity = self.identity(plan, executor).await?;
        volumes.extend(identity.as_ref().map(Issue::join));
        let created = self
            .create(plan, executor, &base.image, &volumes, &hold)
            .await;
        let addresses = created.map_err(|error| RunError::Container(error.to_string()))?;
        let mut env = plan.env.clone();
        let renewal = match identity {
            Some(identity) => {
                env.extend(environment());
                let own = own_addresses(plan, &addresses);
                Some(identity.begin(&self.layer, own).await?)
            }
            None => None,
        };
        Ok(Container {
            layer: self.layer.clone(),
            executor: executor.clone(),
            tasks: self.settings.tasks.clone(),
            image_env: base.env,
            env,
            forced_env: network::forced_env(&plan.forced_env, &addresses),
            grace: self.settings.grace,
            count: AtomicU32::new(0),
            _renewal: renewal,
        })
    }

    /// What the core cannot do yet is refused, or left out by the operator's leave; never in silence.
    fn check_features(&self, plan: &Plan) -> Result<(), RunError> {
        let wanted = [(
            Feature::Egress,
            self.settings.network.is_none() && !plan.network.egress.is_empty(),
        )];
        for (feature, wanted) in wanted {
            if wanted && !self.settings.unenforced.contains(&feature) {
                return Err(RunError::Unsupported { feature });
            }
        }
        Ok(())
    }

    async fn mounts(
        &self,
        plan: &Plan,
        executor: &ElementId,
        log: &Streamer,
        cancel: &CancellationToken,
    ) -> Result<Vec<(ElementId, JoinHow)>, RunError> {
        let made = plan
            .mounts
            .iter()
            .enumerate()
            .map(|(at, mount)| async move {
                let volume = self.volume(at, mount, executor, log, cancel).await?;
                Ok((volume, how(mount)))
            });
        // All at once, as Diego fetches its dependencies; the first failure counts.
        let made = futures::future::join_all(made).await;
        made.into_iter().collect()
    }

    async fn volume(
        &self,
        at: usize,
        mount: &Mount,
        executor: &ElementId,
        log: &Streamer,
        cancel: &CancellationToken,
    ) -> Result<ElementId, RunError> {
        match &mount.source {
            MountSource::Volume(volume) => Ok(volume.clone()),
            MountSource::Ensure(volume) => {
                let new = NewElement::new(volume.clone(), Spec::Volume(VolumeSpec::default()));
                match self.layer.create(new).await {
                    Ok(_) | Err(CreateError::AlreadyExists { .. }) => Ok(volume.clone()),
                    Err(error) => Err(RunError::Volume(chain(&error))),
                }
            }
            MountSource::Files(files) => {
                let mut tar = TarBuilder::new();
                for (path, content) in files {
                    tar = tar.file(path, 0o444, content.as_bytes());
                }
                let name = format!("runs/{}/files-{at}", executor.name());
                let volume = ElementId::new(Kind::Volume, &self.settings.volumes, &name)
                    .map_err(|_| RunError::Files)?;
                let new = NewElement::new(volume.clone(), Spec::Volume(VolumeSpec::default()));
                self.layer.create(new.data(Cursor::new(tar.finish()))).await.map_err(|error| {
                    tracing::warn!(%executor, error = chain(&error), "the files of a run cannot be made");
                    RunError::Files
                })?;
                Ok(volume)
            }
            MountSource::Archive(archive) => {
                let log = log.source(&archive.source);
                // What may be written to is the run's own, never the copy everybody has.
                let own = (mount.access == Access::ReadWrite)
                    .then(|| format!("runs/{}/archive-{at}", executor.name()));
                match self.archive(archive, own, &log, cancel).await {
                    Ok(volume) => Ok(volume),
                    Err(ArchiveFault::Fetch(FetchError::Cancelled)) => {
                        Err(ActionError::Cancelled.into())
                    }
                    Err(error) => {
                        if let Some(label) = &archive.label {
                            log.stdout(&format!("Downloading {label} failed"));
                        }
                        log.stderr(&format!("cause: {error}"));
                        Err(RunError::Archives)
                    }
                }
            }
        }
    }

    /// The volume with the content of an archive: named by the sum of the archive and made once, or of an own name.
    async fn archive(
        &self,
        archive: &Archive,
        own: Option<String>,
        log: &Streamer,
        cancel: &CancellationToken,
    ) -> Result<ElementId, ArchiveFault> {
        if let Some(label) = &archive.label {
            log.stdout(&format!("Downloading {label}..."));
        }
        let fetched = self.fetcher.fetch(archive, cancel).await?;
        let name = own.unwrap_or_else(|| format!("archives/{}", fetched.sha256));
        let volume = ElementId::new(Kind::Volume, &self.settings.volumes, &name)?;
        let there = self.layer.read(&volume).await.is_ok();
        if !there {
            let (mut file, format) = (fetched.file, archive.format);
            let spool = self.fetcher.directory().to_owned();
            let tar = tokio::task::spawn_blocking(move || match packing(&mut file, format)? {
                Packing::Tar => Ok::<_, FetchError>(file),
                Packing::Zip => {
                    let mut tar = tempfile::tempfile_in(spool)?;
                    tar_of_zip(file, &mut tar, &ArchiveLimits::default())?;
                    tar.seek(SeekFrom::Start(0))?;
                    Ok(tar)
                }
            });
            let tar = tar
                .await
                .map_err(|error| FetchError::Io(std::io::Error::other(error)))??;
            let new = NewElement::new(volume.clone(), Spec::Volume(VolumeSpec::default()));
            match self
                .layer
                .create(new.data(tokio::fs::File::from_std(tar)))
                .await
            {
                Ok(_) | Err(CreateError::AlreadyExists { .. }) => {}
                Err(error) => return Err(ArchiveFault::Create(error)),
            }
        }
        if let Some(label) = &archive.label {
            match fetched.downloaded_bytes {
                Some(bytes) => log.stdout(&format!("Downloaded {label} ({})", size::shown(bytes))),
                None => log.stdout(&format!("Downloaded {label}")),
            }
        }
        Ok(volume)
    }

    /// Creates the executor and the task that waits in it, whose id is the answer.
    async fn elements(
        &self,
        plan: &Plan,
        executor: &ElementId,
        disk_bytes: Option<u64>,
    ) -> Result<ElementId, ContainerError> {
        let spec = ExecutorSpec {
            hostname: plan.hostname.clone(),
            limits: Limits {
                memory_bytes: plan.limits.memory_bytes,
                memory_swap_bytes: plan.limits.memory_bytes,
                cpu_shares: plan.limits.cpu_shares,
                cpu_quota_us: None,
                disk_bytes: disk_bytes.map(|bytes| bytes.max(LEAST_DISK_BYTES)),
                disk_inodes: None,
                pids: Some(
                    plan.limits
                        .pids
                        .map_or(UNLIMITED_PIDS, |pids| pids.saturating_add(OWN_PIDS)),
                ),
            },
            isolation: Isolation {
                privileged: plan.privileged,
                add_capabilities: match plan.privileged {
                    true => Vec::new(),
                    false => plan.more_capabilities.clone(),
                },
                allow_new_privileges: plan.set_id_programs,
                compat_programs: plan.compat_programs,
                ..Isolation::default()
            },
        };
        let mut new = NewElement::new(executor.clone(), Spec::Executor(Box::new(spec)));
        // For whoever provides networks: the port layer hands them on and does not look at them.
        for (name, value) in &plan.network.properties {
            new = new.ro(format!("network.{name}"), value.as_str());
        }
        let hold = ElementId::new(
            Kind::Task,
            &self.settings.tasks,
            &format!("{}/hold", executor.name()),
        )?;
        let quiet = LogChoice {
            discard: true,
            ..LogChoice::default()
        };
        let task = TaskSpec {
            argv: self.settings.hold.clone(),
            user: Some("0:0".to_owned()),
            cwd: Some("/".to_owned()),
            stdout: quiet.clone(),
            stderr: quiet,
            stop: StopSpec {
                signal: Some(15),
                grace_ms: 1000,
            },
            ..TaskSpec::default()
        };
        let task = NewElement::new(hold.clone(), Spec::Task(Box::new(task)));
        // Both on one way to the disk; each is waited for, so that a removal meets what is there.
        let (executor, task) = tokio::join!(self.layer.create(new), self.layer.create(task));
        executor.and(task)?;
        Ok(hold)
    }

    /// Makes the container.
    async fn create(
        &self,
        plan: &Plan,
        executor: &ElementId,
        image: &ElementId,
        volumes: &[(ElementId, JoinHow)],
        hold: &ElementId,
    ) -> Result<network::Addresses, ContainerError> {
        let compose = ContainerError::from_compose;
        let layer = &self.layer;
        let mut handle = layer.compose(executor).await.map_err(compose)?;
        handle = layer
            .join(handle, image, JoinHow::root())
            .await
            .map_err(compose)?;
        for (volume, how) in volumes {
            handle = layer
                .join(handle, volume, how.clone())
                .await
                .map_err(compose)?;
        }
        if let Some(id) = &self.settings.network {
            let how = JoinHow::Network(network::wanted(&plan.network));
            handle = layer.join(handle, id, how).await.map_err(compose)?;
        }
        handle = layer
            .join(handle, hold, JoinHow::Task)
            .await
            .map_err(compose)?;
        handle = layer
            .bind(handle, None, BindHow::Plain)
            .await
            .map_err(compose)?;
        die::at("run.before-commit");
        layer.commit(handle).await?;
        die::at("run.after-commit");
        match &self.settings.network {
            Some(_) => network::addresses(layer, executor).await,
            None => Ok(network::Addresses::default()),
        }
    }
}

/// The smallest writable layer the port layer makes; what asks for less gets this.
const LEAST_DISK_BYTES: u64 = 4 << 20;

/// What "no limit" of processes is for the core: the largest number a kernel gives out.
const UNLIMITED_PIDS: u32 = 4_194_304;

fn how(mount: &Mount) -> JoinHow {
    match mount.access {
        Access::ReadWrite => JoinHow::volume(&mount.target),
        Access::ReadOnly => JoinHow::read_only_volume(&mount.target),
    }
}

/// Why the volume of an archive could not be made.
#[derive(Debug, thiserror::Error)]
enum ArchiveFault {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Id(#[from] portlayer::element::IdError),
    #[error("{}", chain(.0))]
    Create(CreateError),
}
