//! `definition -> Plan`, pure. Rules by section of `docs/task-definitions.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use portlayer::element::{ElementId, Kind};
use portlayer::store::Access;
use thiserror::Error;

use super::rootfs::{self, Rootfs};
use super::schema::{
    self, ActionKind, DigestAlgorithm, LayerType, MediaType, SecurityGroupRule, TaskDefinition,
};
use super::settings::Settings;
use super::validate::Destination;
use crate::plan::{
    Action, Algorithm, Archive, Checksum, Credentials, Download, EgressRule, EmitProgress,
    EnvValue, Format, Identity, Limits, Logs, Mount, MountSource, Network, Output, Plan, Protocol,
    Root, Run, Upload,
};

/// Where volume mounted files appear.
const SERVICE_BINDINGS: &str = "/etc/cf-service-bindings";
/// What makes the port layer's set Garden's fourteen.
const CAPABILITIES: [&str; 4] = ["CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE", "CAP_SETFCAP"];
/// Bytes in a mebibyte.
const MIB: u64 = 1 << 20;
/// The source of log lines when a definition names none.
const DEFAULT_SOURCE: &str = "LOG";

/// Why a valid definition cannot be planned on this node. The texts are Diego's: they become the failure reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// No driver of that name.
    #[error("found no compatible cell with required volume drivers")]
    VolumeDriver {
        /// The name.
        driver: String,
    },
    /// The driver has no place for the volume: its id cannot be one of ours.
    #[error("failed to mount volume, errors: volume_id {volume_id:?} is not usable as a name")]
    VolumeId {
        /// The id.
        volume_id: String,
    },
    /// The root file system's URL has a form this node does not know.
    #[error("found no compatible cell for required rootfs")]
    Rootfs,
    /// The definition was not validated: this part of it cannot be translated.
    #[error("{path} was not validated")]
    NotValidated {
        /// Path of the field.
        path: &'static str,
    },
}

/// Translates a validated definition.
///
/// # Errors
/// [`PlanError`]; `NotValidated` only for what [`validate`](super::validate()) refuses.
pub fn plan(
    guid: &str,
    definition: &TaskDefinition,
    settings: &Settings,
) -> Result<Plan, PlanError> {
    let logged = !definition.log_guid.is_empty();
    // Without a log guid Diego has no streamer, and the name in reasons is always LOG.
    let source = match logged && !definition.log_source.is_empty() {
        true => definition.log_source.as_str(),
        false => DEFAULT_SOURCE,
    };
    let translator = Translator {
        logged,
        user: extraction_user(definition),
        definition,
    };
    let mut mounts = translator.archives(source)?;
    mounts.extend(volumes(definition, settings)?);
    let mut env = pairs(&definition.env);
    let certificates = &definition.trusted_system_certificates_path;
    if let (false, Some(volume)) = (certificates.is_empty(), &settings.trusted_certificates) {
        mounts.push(Mount {
            target: certificates.clone(),
            access: Access::ReadOnly,
            source: MountSource::Volume(volume.clone()),
        });
        env.push(("CF_SYSTEM_CERT_PATH".to_owned(), certificates.clone()));
    }
    if !definition.volume_mounted_files.is_empty() {
        let files = definition.volume_mounted_files.iter();
        mounts.push(Mount {
            target: SERVICE_BINDINGS.to_owned(),
            access: Access::ReadOnly,
            source: MountSource::Files(
                files
                    .map(|file| (file.path.clone(), file.content.clone()))
                    .collect(),
            ),
        });
    }
    let action = definition
        .action
        .as_ref()
        .ok_or(PlanError::NotValidated { path: "action" })?;
    let action = translator.with_layers(translator.action(action, source)?, source)?;
    Ok(Plan {
        root: root(definition, settings)?,
        mounts,
        env,
        forced_env: forced_env(settings),
        limits: limits(definition),
        privileged: definition.privileged,
        more_capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        // ping and sudo work in Garden's containers.
        set_id_programs: true,
        compat_programs: true,
        network: Network {
            egress: definition
                .egress_rules
                .iter()
                .map(egress)
                .collect::<Result<_, _>>()?,
            properties: properties(definition),
        },
        action,
        outputs: result_file(definition, settings),
        logs: logs(definition, source),
        placement_tags: definition.placement_tags.clone(),
        hostname: Some(hostname(guid)),
        identity: Some(Identity {
            name: guid.to_owned(),
            organizational_units: definition
                .certificate_properties
                .as_ref()
                .map(|properties| properties.organizational_unit.clone())
                .unwrap_or_default(),
        }),
    })
}

fn root(definition: &TaskDefinition, settings: &Settings) -> Result<Root, PlanError> {
    match rootfs::parse(&definition.rootfs).ok_or(PlanError::Rootfs)? {
        Rootfs::Preloaded(name) => {
            let own = || {
                let location = settings.preloaded_location.as_deref();
                let location = location.filter(|_| !name.contains('/'))?;
                ElementId::new(Kind::Image, location, &name).ok()
            };
            Ok(match settings.preloaded.get(&name).cloned().or_else(own) {
                Some(image) => Root::Image(image),
                None => Root::Unknown { name },
            })
        }
        Rootfs::Registry(reference) => {
            let image = rootfs::image(&reference, &settings.image_location);
            Ok(Root::Registry {
                image: image.map_err(|_| PlanError::Rootfs)?,
                reference,
                credentials: (!definition.image_username.is_empty()).then(|| Credentials {
                    username: definition.image_username.clone(),
                    password: definition.image_password.clone(),
                }),
            })
        }
    }
}

fn limits(definition: &TaskDefinition) -> Limits {
    let mib = |value: i32| {
        u64::try_from(value)
            .ok()
            .filter(|value| *value > 0)
            .map(|value| value * MIB)
    };
    Limits {
        memory_bytes: mib(definition.memory_mb),
        disk_bytes: mib(definition.disk_mb),
        // 0 is the kernel's default, the same as 100; what is above 100 is taken as 100 (the seed says 1 to 100).
        cpu_shares: match definition.cpu_weight {
            0 => None,
            weight => Some((1024 * u64::from(weight.min(100)) / 100).max(2)),
        },
        pids: u32::try_from(definition.max_pids)
            .ok()
            .filter(|pids| *pids > 0),
    }
}

/// The user that extracts exclusive layers: as given, else the one user of all runs, else root.
fn extraction_user(definition: &TaskDefinition) -> String {
    if !definition.legacy_download_user.is_empty() {
        return definition.legacy_download_user.clone();
    }
    let mut users = Vec::new();
    if let Some(action) = &definition.action {
        collect_users(action, &mut users);
    }
    users.dedup();
    match users.as_slice() {
        [one] => (*one).to_owned(),
        _ => "root".to_owned(),
    }
}

fn collect_users<'a>(action: &'a schema::Action, users: &mut Vec<&'a str>) {
    for kind in action.kinds() {
        let (one, list) = match kind {
            ActionKind::Run(run) => {
                if !users.contains(&run.user.as_str()) {
                    users.push(&run.user);
                }
                (None, None)
            }
            ActionKind::Timeout(timeout) => (timeout.action.as_ref(), None),
            ActionKind::EmitProgress(progress) => (progress.action.as_ref(), None),
            ActionKind::Try(attempt) => (attempt.action.as_ref(), None),
            ActionKind::Parallel(list)
            | ActionKind::Serial(list)
            | ActionKind::Codependent(list) => (None, Some(&list.actions)),
            ActionKind::Download(_) | ActionKind::Upload(_) => (None, None),
        };
        let inner = one.into_iter().chain(list.into_iter().flatten().flatten());
        inner.for_each(|action| collect_users(action, users));
    }
}

fn volumes(definition: &TaskDefinition, settings: &Settings) -> Result<Vec<Mount>, PlanError> {
    let mounts = definition.volume_mounts.iter().map(|mount| {
        let driver = settings.volume_drivers.get(&mount.driver);
        let location = driver.ok_or_else(|| PlanError::VolumeDriver {
            driver: mount.driver.clone(),
        })?;
        let shared = mount.shared.as_ref().ok_or(PlanError::NotValidated {
            path: "volume_mounts",
        })?;
        let id = ElementId::new(Kind::Volume, location, &shared.volume_id);
        let volume = id.map_err(|_| PlanError::VolumeId {
            volume_id: shared.volume_id.clone(),
        })?;
        Ok(Mount {
            target: mount.container_dir.trim_end_matches('/').to_owned(),
            access: if mount.mode == "rw" {
                Access::ReadWrite
            } else {
                Access::ReadOnly
            },
            source: MountSource::Ensure(volume),
        })
    });
    mounts.collect()
}

fn forced_env(settings: &Settings) -> Vec<(String, EnvValue)> {
    let address = settings.node_address.clone();
    [
        ("CF_INSTANCE_IP", EnvValue::Text(address.clone())),
        ("CF_INSTANCE_INTERNAL_IP", EnvValue::Address(address)),
        ("CF_INSTANCE_INTERNAL_IPV6", EnvValue::AddressV6),
        ("CF_INSTANCE_PORT", EnvValue::Text(String::new())),
        ("CF_INSTANCE_ADDR", EnvValue::Text(String::new())),
        ("CF_INSTANCE_PORTS", EnvValue::Text("[]".to_owned())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn result_file(definition: &TaskDefinition, settings: &Settings) -> Vec<Output> {
    match definition.result_file.as_str() {
        "" => Vec::new(),
        path => vec![Output::File {
            path: path.to_owned(),
            limit_bytes: settings.result_limit_bytes,
            overflow: settings.result_overflow,
        }],
    }
}

fn logs(definition: &TaskDefinition, source: &str) -> Logs {
    let tags = definition.metric_tags.iter();
    let rate = definition
        .log_rate_limit
        .as_ref()
        .map(|limit| limit.bytes_per_second);
    Logs {
        stream: Some(definition.log_guid.clone()).filter(|guid| !guid.is_empty()),
        source: source.to_owned(),
        bytes_per_second: rate.and_then(|rate| u64::try_from(rate).ok()),
        tags: tags
            .map(|(name, value)| (name.clone(), value.fixed.clone()))
            .collect(),
    }
}

fn properties(definition: &TaskDefinition) -> BTreeMap<String, String> {
    definition
        .network
        .as_ref()
        .map(|network| network.properties.clone())
        .unwrap_or_default()
}

/// The last 49 characters of the guid, as Garden names its containers.
fn hostname(guid: &str) -> String {
    let cut = guid.len().saturating_sub(49);
    let name = guid.get(cut..).unwrap_or(guid).replace('_', "-");
    match name.trim_matches('-') {
        "" => "task".to_owned(),
        name => name.to_owned(),
    }
}

fn pairs(env: &[schema::EnvironmentVariable]) -> Vec<(String, String)> {
    env.iter()
        .map(|variable| (variable.name.clone(), variable.value.clone()))
        .collect()
}

fn egress(rule: &SecurityGroupRule) -> Result<EgressRule, PlanError> {
    const REFUSED: PlanError = PlanError::NotValidated {
        path: "egress_rules",
    };
    let port = |port: u32| u16::try_from(port).map_err(|_| REFUSED);
    let mut ports = Vec::new();
    for single in rule.ports.iter().flatten() {
        ports.push((port(*single)?, port(*single)?));
    }
    if let Some(range) = &rule.port_range {
        ports.push((port(range.start)?, port(range.end)?));
    }
    let icmp = rule.icmp_info.as_ref();
    let number = |value: i32| u8::try_from(value).ok();
    let kind = icmp.and_then(|info| number(info.kind));
    let code = icmp.and_then(|info| number(info.code));
    let lists = rule.destinations.iter().flat_map(|list| list.split(','));
    let destinations = lists.map(|text| {
        let range = Destination::parse(text).map_err(|_| REFUSED)?;
        Ok((range.first, range.last))
    });
    Ok(EgressRule {
        protocol: match rule.protocol.as_str() {
            "tcp" => Protocol::Tcp(ports),
            "udp" => Protocol::Udp(ports),
            "icmp" => Protocol::Icmp { kind, code },
            "icmpv6" => Protocol::Icmpv6 { kind, code },
            "all" => Protocol::All,
            _ => return Err(REFUSED),
        },
        destinations: destinations.collect::<Result<_, _>>()?,
        log: rule.log,
    })
}

/// What every part of the action tree needs to know.
struct Translator<'a> {
    logged: bool,
    user: String,
    definition: &'a TaskDefinition,
}

impl Translator<'_> {
    /// Shared layers, then cached dependencies, as Diego orders them.
    fn archives(&self, source: &str) -> Result<Vec<Mount>, PlanError> {
        let mut mounts = Vec::new();
        for layer in self.layers(LayerType::Shared) {
            let mut archive = self.layer(layer, source)?;
            archive.cache_key = Some(match &archive.checksum {
                Some(checksum) => format!("{}:{}", checksum.algorithm.as_str(), checksum.hex),
                None => archive.url.clone(),
            });
            mounts.push(self.shared(&layer.destination_path, archive));
        }
        for dependency in &self.definition.cached_dependencies {
            let checksum = checksum(&dependency.checksum_algorithm, &dependency.checksum_value)?;
            // Diego accepts a dependency without key and then fails; the place and the sum are a key as well.
            let derived = || match &checksum {
                Some(checksum) => format!(
                    "{}#{}:{}",
                    dependency.from,
                    checksum.algorithm.as_str(),
                    checksum.hex
                ),
                None => dependency.from.clone(),
            };
            let key = match dependency.cache_key.as_str() {
                "" => derived(),
                key => key.to_owned(),
            };
            let archive = Archive {
                label: label(&dependency.name),
                url: dependency.from.clone(),
                cache_key: Some(key),
                checksum,
                format: None,
                source: self.source(&dependency.log_source, source).to_owned(),
            };
            mounts.push(self.shared(&dependency.to, archive));
        }
        Ok(mounts)
    }

    /// A shared directory. Where an exclusive layer goes below it, which nothing that is read-only could take in (the
    /// documented example does that), the task gets a copy of its own.
    fn shared(&self, to: &str, archive: Archive) -> Mount {
        let target = format!("/{}", to.trim_matches('/'));
        let holds = |layer: &schema::ImageLayer| {
            let place = format!("/{}", layer.destination_path.trim_matches('/'));
            Path::new(&place).starts_with(&target)
        };
        let access = match self.layers(LayerType::Exclusive).any(holds) {
            true => Access::ReadWrite,
            false => Access::ReadOnly,
        };
        Mount {
            target,
            access,
            source: MountSource::Archive(archive),
        }
    }

    fn layers(&self, wanted: LayerType) -> impl Iterator<Item = &schema::ImageLayer> {
        let layers = self.definition.image_layers.iter();
        layers.filter(move |layer| layer.layer_type == Some(wanted))
    }

    fn layer(&self, layer: &schema::ImageLayer, source: &str) -> Result<Archive, PlanError> {
        let algorithm = match layer.digest_algorithm {
            Some(DigestAlgorithm::Sha256) => Some(Algorithm::Sha256),
            Some(DigestAlgorithm::Sha512) => Some(Algorithm::Sha512),
            Some(DigestAlgorithm::Invalid) | None => None,
        };
        Ok(Archive {
            label: label(&layer.name),
            url: layer.url.clone(),
            cache_key: None,
            checksum: algorithm.map(|algorithm| Checksum {
                algorithm,
                hex: layer.digest_value.clone(),
            }),
            format: match layer.media_type {
                Some(MediaType::Tgz) => Some(Format::TarGzip),
                Some(MediaType::Tar) => Some(Format::Tar),
                Some(MediaType::Zip) => Some(Format::Zip),
                Some(MediaType::Invalid) | None => {
                    return Err(PlanError::NotValidated {
                        path: "image_layers",
                    });
                }
            },
            source: source.to_owned(),
        })
    }

    /// Exclusive layers are downloaded before the action, all at once.
    fn with_layers(&self, action: Action, source: &str) -> Result<Action, PlanError> {
        let downloads = self.layers(LayerType::Exclusive).map(|layer| {
            let mut archive = self.layer(layer, source)?;
            archive.cache_key = archive
                .checksum
                .as_ref()
                .map(|checksum| format!("{}:{}", checksum.algorithm.as_str(), checksum.hex));
            Ok(Action::Download(Download {
                archive,
                to: layer.destination_path.clone(),
                user: self.user.clone(),
            }))
        });
        let downloads: Vec<_> = downloads.collect::<Result<_, PlanError>>()?;
        if downloads.is_empty() {
            return Ok(action);
        }
        Ok(Action::Serial(vec![Action::Parallel(downloads), action]))
    }

    /// The source an action names, else the one it inherits.
    fn source<'s>(&self, own: &'s str, inherited: &'s str) -> &'s str {
        match own.is_empty() || !self.logged {
            true => inherited,
            false => own,
        }
    }

    fn action(&self, action: &schema::Action, source: &str) -> Result<Action, PlanError> {
        const REFUSED: PlanError = PlanError::NotValidated { path: "action" };
        let kinds = action.kinds();
        let kind = kinds.first().ok_or(REFUSED)?;
        let inner = |action: Option<&schema::Action>, source: &str| {
            Ok::<_, PlanError>(Box::new(self.action(action.ok_or(REFUSED)?, source)?))
        };
        let list = |list: &schema::ActionList, source: &str| {
            let actions = list.actions.iter();
            let actions =
                actions.map(|action| self.action(action.as_ref().ok_or(REFUSED)?, source));
            actions.collect::<Result<Vec<_>, _>>()
        };
        Ok(match kind {
            ActionKind::Run(run) => Action::Run(Run {
                argv: std::iter::once(&run.path)
                    .chain(&run.args)
                    .cloned()
                    .collect(),
                dir: Some(run.dir.clone()).filter(|dir| !dir.is_empty()),
                env: pairs(&run.env),
                user: run.user.clone(),
                open_files: run
                    .resource_limits
                    .as_ref()
                    .and_then(|limits| limits.nofile),
                source: self.source(&run.log_source, source).to_owned(),
                silent: run.suppress_log_output,
            }),
            ActionKind::Download(download) => Action::Download(Download {
                archive: Archive {
                    label: label(&download.artifact),
                    url: download.from.clone(),
                    cache_key: Some(download.cache_key.clone()).filter(|key| !key.is_empty()),
                    checksum: checksum(&download.checksum_algorithm, &download.checksum_value)?,
                    format: None,
                    source: self.source(&download.log_source, source).to_owned(),
                },
                to: download.to.clone(),
                user: download.user.clone(),
            }),
            ActionKind::Upload(upload) => Action::Upload(Upload {
                label: label(&upload.artifact),
                from: upload.from.clone(),
                url: upload.to.clone(),
                user: upload.user.clone(),
                source: self.source(&upload.log_source, source).to_owned(),
            }),
            ActionKind::Timeout(timeout) => Action::Timeout {
                limit: Duration::from_millis(
                    u64::try_from(timeout.timeout_ms).map_err(|_| REFUSED)?,
                ),
                action: inner(
                    timeout.action.as_ref(),
                    self.source(&timeout.log_source, source),
                )?,
            },
            ActionKind::EmitProgress(progress) => Action::EmitProgress(EmitProgress {
                start: progress.start_message.clone(),
                success: progress.success_message.clone(),
                failure_prefix: progress.failure_message_prefix.clone(),
                source: self.source(&progress.log_source, source).to_owned(),
                // Its own messages only: the action keeps what it inherits.
                action: inner(progress.action.as_ref(), source)?,
            }),
            ActionKind::Try(attempt) => Action::Try(inner(
                attempt.action.as_ref(),
                self.source(&attempt.log_source, source),
            )?),
            ActionKind::Parallel(actions) => {
                Action::Parallel(list(actions, self.source(&actions.log_source, source))?)
            }
            // Diego's executor does not look at the log source of a serial action.
            ActionKind::Serial(actions) => Action::Serial(list(actions, source)?),
            ActionKind::Codependent(actions) => {
                Action::Codependent(list(actions, self.source(&actions.log_source, source))?)
            }
        })
    }
}

fn label(name: &str) -> Option<String> {
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

fn checksum(algorithm: &str, hex: &str) -> Result<Option<Checksum>, PlanError> {
    if algorithm.is_empty() {
        return Ok(None);
    }
    let known = Algorithm::from_name(algorithm);
    let algorithm = known.ok_or(PlanError::NotValidated {
        path: "checksum_algorithm",
    })?;
    let hex = hex.to_owned();
    Ok(Some(Checksum { algorithm, hex }))
}

#[cfg(test)]
mod tests;
