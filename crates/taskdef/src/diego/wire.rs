//! The protobuf form of definitions and tasks: messages by the field numbers of `bbs:models/*.proto`, and their
//! translation from and into the [schema](super::schema). Only what is read is kept; unknown fields are skipped, as
//! protobuf does.

mod encode;
mod message;

use prost::Message;

pub use encode::{definition_to_protobuf, desire_to_protobuf, task_to_protobuf};

use super::parse::{MAX_BYTES, ParseError};
use super::schema as to;
use message::{
    Action, ActionList, CachedDependency, DesireTaskRequest, DownloadAction, EnvironmentVariable,
    File, ImageLayer, MetricTagValue, RunAction, SecurityGroupRule, TaskDefinition, UploadAction,
    VolumeMount,
};

/// Reads a `DesireTaskRequest`.
///
/// # Errors
/// `TooLarge`, `Protobuf`, `Number`.
pub fn desire_from_protobuf(bytes: &[u8]) -> Result<to::DesiredTask, ParseError> {
    check_size(bytes)?;
    let request = DesireTaskRequest::decode(bytes)?;
    let definition = request.task_definition.map(definition).transpose()?;
    Ok(to::DesiredTask {
        task_guid: request.task_guid,
        domain: request.domain,
        definition: definition.map(Box::new),
    })
}

/// Reads a `TaskDefinition`.
///
/// # Errors
/// `TooLarge`, `Protobuf`, `Number`.
pub fn definition_from_protobuf(bytes: &[u8]) -> Result<to::TaskDefinition, ParseError> {
    check_size(bytes)?;
    definition(TaskDefinition::decode(bytes)?)
}

fn check_size(bytes: &[u8]) -> Result<(), ParseError> {
    match bytes.len() <= MAX_BYTES {
        true => Ok(()),
        false => Err(ParseError::TooLarge { bytes: bytes.len() }),
    }
}

fn list<A, B>(from: Vec<A>, convert: impl Fn(A) -> B) -> Vec<B> {
    from.into_iter().map(convert).collect()
}

fn definition(from: TaskDefinition) -> Result<to::TaskDefinition, ParseError> {
    let layers = from.image_layers.into_iter().enumerate();
    let tags = from.metric_tags.into_iter().map(metric_tag);
    Ok(to::TaskDefinition {
        rootfs: from.rootfs,
        env: list(from.env, variable),
        action: from.action.map(action),
        disk_mb: from.disk_mb,
        memory_mb: from.memory_mb,
        cpu_weight: from.cpu_weight,
        privileged: from.privileged,
        log_source: from.log_source,
        log_guid: from.log_guid,
        metrics_guid: from.metrics_guid,
        result_file: from.result_file,
        completion_callback_url: from.completion_callback_url,
        annotation: from.annotation,
        egress_rules: list(from.egress_rules, egress_rule),
        cached_dependencies: list(from.cached_dependencies, dependency),
        legacy_download_user: from.legacy_download_user,
        trusted_system_certificates_path: from.trusted_system_certificates_path,
        volume_mounts: list(from.volume_mounts, volume_mount),
        network: from.network.map(|network| to::Network {
            properties: network.properties.into_iter().collect(),
        }),
        placement_tags: from.placement_tags,
        max_pids: from.max_pids,
        certificate_properties: from.certificate_properties.map(|properties| {
            to::CertificateProperties {
                organizational_unit: properties.organizational_unit,
            }
        }),
        image_username: from.image_username,
        image_password: from.image_password,
        image_layers: layers.map(layer).collect::<Result<_, _>>()?,
        log_rate_limit: from.log_rate_limit.map(|limit| to::LogRateLimit {
            bytes_per_second: limit.bytes_per_second,
        }),
        metric_tags: tags.collect::<Result<_, _>>()?,
        volume_mounted_files: list(from.volume_mounted_files, file),
    })
}

fn variable(from: EnvironmentVariable) -> to::EnvironmentVariable {
    to::EnvironmentVariable {
        name: from.name,
        value: from.value,
    }
}

fn file(from: File) -> to::File {
    to::File {
        path: from.path,
        content: from.content,
    }
}

fn action(from: Action) -> to::Action {
    to::Action {
        download: from.download.map(|from| Box::new(download(*from))),
        upload: from.upload.map(|from| Box::new(upload(*from))),
        run: from.run.map(|from| Box::new(run(*from))),
        timeout: from.timeout.map(|from| {
            Box::new(to::TimeoutAction {
                action: from.action.map(action),
                deprecated_timeout_ns: Some(from.deprecated_timeout_ns).filter(|ns| *ns != 0),
                log_source: from.log_source,
                timeout_ms: from.timeout_ms,
            })
        }),
        emit_progress: from.emit_progress.map(|from| {
            Box::new(to::EmitProgressAction {
                action: from.action.map(action),
                start_message: from.start_message,
                success_message: from.success_message,
                failure_message_prefix: from.failure_message_prefix,
                log_source: from.log_source,
            })
        }),
        r#try: from.r#try.map(|from| {
            Box::new(to::TryAction {
                action: from.action.map(action),
                log_source: from.log_source,
            })
        }),
        parallel: from.parallel.map(|list| actions(*list)),
        serial: from.serial.map(|list| actions(*list)),
        codependent: from.codependent.map(|list| actions(*list)),
    }
}

fn actions(from: ActionList) -> Box<to::ActionList> {
    Box::new(to::ActionList {
        actions: list(from.actions, |from| Some(action(from))),
        log_source: from.log_source,
    })
}

fn download(from: DownloadAction) -> to::DownloadAction {
    to::DownloadAction {
        artifact: from.artifact,
        from: from.from,
        to: from.to,
        cache_key: from.cache_key,
        log_source: from.log_source,
        user: from.user,
        checksum_algorithm: from.checksum_algorithm,
        checksum_value: from.checksum_value,
    }
}

fn upload(from: UploadAction) -> to::UploadAction {
    to::UploadAction {
        artifact: from.artifact,
        from: from.from,
        to: from.to,
        log_source: from.log_source,
        user: from.user,
    }
}

fn run(from: RunAction) -> to::RunAction {
    to::RunAction {
        path: from.path,
        args: from.args,
        dir: from.dir,
        env: list(from.env, variable),
        resource_limits: from.resource_limits.map(|limits| to::ResourceLimits {
            nofile: limits.nofile,
            nproc: limits.nproc,
        }),
        user: from.user,
        log_source: from.log_source,
        suppress_log_output: from.suppress_log_output,
        volume_mounted_files: list(from.volume_mounted_files, file),
    }
}

fn egress_rule(from: SecurityGroupRule) -> to::SecurityGroupRule {
    to::SecurityGroupRule {
        protocol: from.protocol,
        destinations: from.destinations,
        // An empty list cannot be told from none here.
        ports: Some(from.ports).filter(|ports| !ports.is_empty()),
        port_range: from.port_range.map(|range| to::PortRange {
            start: range.start,
            end: range.end,
        }),
        icmp_info: from.icmp_info.map(|info| to::IcmpInfo {
            kind: info.kind,
            code: info.code,
        }),
        log: from.log,
        annotations: from.annotations,
    }
}

fn dependency(from: CachedDependency) -> to::CachedDependency {
    to::CachedDependency {
        name: from.name,
        from: from.from,
        to: from.to,
        cache_key: from.cache_key,
        log_source: from.log_source,
        checksum_algorithm: from.checksum_algorithm,
        checksum_value: from.checksum_value,
    }
}

fn volume_mount(from: VolumeMount) -> to::VolumeMount {
    to::VolumeMount {
        driver: from.driver,
        container_dir: from.container_dir,
        mode: from.mode,
        shared: from.shared.map(|shared| to::SharedDevice {
            volume_id: shared.volume_id,
            mount_config: shared.mount_config,
        }),
    }
}

fn layer((at, from): (usize, ImageLayer)) -> Result<to::ImageLayer, ParseError> {
    let number = |field: &str, number: i32| ParseError::Number {
        path: format!("image_layers[{at}].{field}"),
        number,
    };
    Ok(to::ImageLayer {
        layer_type: match from.layer_type {
            0 => None,
            1 => Some(to::LayerType::Shared),
            2 => Some(to::LayerType::Exclusive),
            other => return Err(number("layer_type", other)),
        },
        media_type: match from.media_type {
            0 => None,
            1 => Some(to::MediaType::Tgz),
            2 => Some(to::MediaType::Tar),
            3 => Some(to::MediaType::Zip),
            other => return Err(number("media_type", other)),
        },
        digest_algorithm: match from.digest_algorithm {
            0 => None,
            1 => Some(to::DigestAlgorithm::Sha256),
            2 => Some(to::DigestAlgorithm::Sha512),
            other => return Err(number("digest_algorithm", other)),
        },
        name: from.name,
        url: from.url,
        destination_path: from.destination_path,
        digest_value: from.digest_value,
    })
}

fn metric_tag(
    (name, from): (String, MetricTagValue),
) -> Result<(String, to::MetricTagValue), ParseError> {
    let dynamic = match from.dynamic {
        0 => None,
        1 => Some(to::DynamicValue::Index),
        2 => Some(to::DynamicValue::InstanceGuid),
        number => {
            let path = format!("metric_tags.{name}.dynamic");
            return Err(ParseError::Number { path, number });
        }
    };
    let fixed = from.fixed;
    Ok((name, to::MetricTagValue { fixed, dynamic }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_by_number_is_read_by_name() {
        // Written by hand: tag bytes are (number << 3) | type.
        let run = [&[0x0a, 2][..], b"ls", &[0x32, 2], b"me"].concat();
        let action = [&[0x1a, u8::try_from(run.len()).unwrap()][..], &run].concat();
        let mut definition = [&[0x0a, 3][..], b"a:b"].concat();
        definition.extend([0x1a, u8::try_from(action.len()).unwrap()]);
        definition.extend(&action);
        definition.extend([0x28, 64, 0xa8, 0x01, 7]);
        let mut request = vec![0x0a, u8::try_from(definition.len()).unwrap()];
        request.extend(&definition);
        request.extend([0x12, 1, b'g', 0x1a, 1, b'd']);
        let desired = desire_from_protobuf(&request).unwrap();
        let json = br#"{"task_guid":"g","domain":"d","rootfs":"a:b","memory_mb":64,"max_pids":7,"action":{"run":{"path":"ls","user":"me"}}}"#;
        assert_eq!(desired, crate::diego::from_json(json).unwrap().desired);
    }

    #[test]
    fn numbers_nobody_knows_are_refused() {
        let layer = [0x20, 9];
        let definition = [&[0xca, 0x01, 2][..], &layer].concat();
        let error = definition_from_protobuf(&definition).unwrap_err();
        assert!(
            matches!(error, ParseError::Number { number: 9, .. }),
            "{error}"
        );
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            if let Ok(desired) = desire_from_protobuf(&bytes) {
                let _ = crate::diego::validate(&desired, &crate::diego::Rules::default());
            }
        }
    }
}
