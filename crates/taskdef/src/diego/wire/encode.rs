//! From the schema to the messages.

use prost::Message;

use super::list;
use super::message as to;
use crate::diego::schema as from;
use crate::diego::tasks::{State, Task};

/// Writes a `Task`. Its password is what the task shows of it.
pub fn task_to_protobuf(task: &Task) -> Vec<u8> {
    let message = to::Task {
        task_definition: Some(definition(&task.definition)),
        task_guid: task.task_guid.clone(),
        domain: task.domain.clone(),
        created_at: task.created_at,
        updated_at: task.updated_at,
        first_completed_at: task.first_completed_at,
        state: match task.state {
            State::Pending => 1,
            State::Running => 2,
            State::Completed => 3,
            State::Resolving => 4,
        },
        cell_id: task.cell_id.clone(),
        result: task.result.clone(),
        failed: task.failed,
        failure_reason: task.failure_reason.clone(),
        rejection_count: i32::try_from(task.rejection_count).unwrap_or(i32::MAX),
        rejection_reason: task.rejection_reason.clone(),
    };
    message.encode_to_vec()
}

/// Writes a `TaskDefinition`.
pub fn definition_to_protobuf(from: &from::TaskDefinition) -> Vec<u8> {
    definition(from).encode_to_vec()
}

/// Writes a `DesireTaskRequest`, as a client sends it.
pub fn desire_to_protobuf(desired: &from::DesiredTask) -> Vec<u8> {
    let message = to::DesireTaskRequest {
        task_definition: desired.definition.as_deref().map(definition),
        task_guid: desired.task_guid.clone(),
        domain: desired.domain.clone(),
    };
    message.encode_to_vec()
}

fn each<A, B>(from: &[A], convert: impl Fn(&A) -> B) -> Vec<B> {
    list(from.iter().collect(), convert)
}

fn definition(from: &from::TaskDefinition) -> to::TaskDefinition {
    let tags = from.metric_tags.iter();
    to::TaskDefinition {
        rootfs: from.rootfs.clone(),
        env: each(&from.env, variable),
        action: from.action.as_ref().map(action),
        disk_mb: from.disk_mb,
        memory_mb: from.memory_mb,
        cpu_weight: from.cpu_weight,
        privileged: from.privileged,
        log_source: from.log_source.clone(),
        log_guid: from.log_guid.clone(),
        metrics_guid: from.metrics_guid.clone(),
        result_file: from.result_file.clone(),
        completion_callback_url: from.completion_callback_url.clone(),
        annotation: from.annotation.clone(),
        egress_rules: each(&from.egress_rules, egress_rule),
        cached_dependencies: each(&from.cached_dependencies, dependency),
        legacy_download_user: from.legacy_download_user.clone(),
        trusted_system_certificates_path: from.trusted_system_certificates_path.clone(),
        volume_mounts: each(&from.volume_mounts, volume_mount),
        network: from.network.as_ref().map(|network| to::Network {
            properties: network.properties.clone(),
        }),
        placement_tags: from.placement_tags.clone(),
        max_pids: from.max_pids,
        certificate_properties: from.certificate_properties.as_ref().map(|properties| {
            to::CertificateProperties {
                organizational_unit: properties.organizational_unit.clone(),
            }
        }),
        image_username: from.image_username.clone(),
        image_password: from.image_password.clone(),
        image_layers: each(&from.image_layers, layer),
        log_rate_limit: from.log_rate_limit.as_ref().map(|limit| to::LogRateLimit {
            bytes_per_second: limit.bytes_per_second,
        }),
        metric_tags: tags
            .map(|(name, tag)| (name.clone(), metric_tag(tag)))
            .collect(),
        volume_mounted_files: each(&from.volume_mounted_files, file),
    }
}

fn variable(from: &from::EnvironmentVariable) -> to::EnvironmentVariable {
    to::EnvironmentVariable {
        name: from.name.clone(),
        value: from.value.clone(),
    }
}

fn file(from: &from::File) -> to::File {
    to::File {
        path: from.path.clone(),
        content: from.content.clone(),
    }
}

fn action(from: &from::Action) -> to::Action {
    let inner = |from: &Option<from::Action>| from.as_ref().map(action);
    let actions = |from: &from::ActionList| {
        Box::new(to::ActionList {
            // An empty place in a list is an empty message.
            actions: each(&from.actions, |from| {
                from.as_ref().map(action).unwrap_or_default()
            }),
            log_source: from.log_source.clone(),
        })
    };
    to::Action {
        download: from
            .download
            .as_deref()
            .map(|from| Box::new(download(from))),
        upload: from.upload.as_deref().map(|from| {
            Box::new(to::UploadAction {
                artifact: from.artifact.clone(),
                from: from.from.clone(),
                to: from.to.clone(),
                log_source: from.log_source.clone(),
                user: from.user.clone(),
            })
        }),
        run: from.run.as_deref().map(|from| Box::new(run(from))),
        timeout: from.timeout.as_deref().map(|from| {
            Box::new(to::TimeoutAction {
                action: inner(&from.action),
                deprecated_timeout_ns: from.deprecated_timeout_ns.unwrap_or(0),
                log_source: from.log_source.clone(),
                timeout_ms: from.timeout_ms,
            })
        }),
        emit_progress: from.emit_progress.as_deref().map(|from| {
            Box::new(to::EmitProgressAction {
                action: inner(&from.action),
                start_message: from.start_message.clone(),
                success_message: from.success_message.clone(),
                failure_message_prefix: from.failure_message_prefix.clone(),
                log_source: from.log_source.clone(),
            })
        }),
        r#try: from.r#try.as_deref().map(|from| {
            Box::new(to::TryAction {
                action: inner(&from.action),
                log_source: from.log_source.clone(),
            })
        }),
        parallel: from.parallel.as_deref().map(actions),
        serial: from.serial.as_deref().map(actions),
        codependent: from.codependent.as_deref().map(actions),
    }
}

fn download(from: &from::DownloadAction) -> to::DownloadAction {
    to::DownloadAction {
        artifact: from.artifact.clone(),
        from: from.from.clone(),
        to: from.to.clone(),
        cache_key: from.cache_key.clone(),
        log_source: from.log_source.clone(),
        user: from.user.clone(),
        checksum_algorithm: from.checksum_algorithm.clone(),
        checksum_value: from.checksum_value.clone(),
    }
}

fn run(from: &from::RunAction) -> to::RunAction {
    let limits = from.resource_limits.as_ref();
    to::RunAction {
        path: from.path.clone(),
        args: from.args.clone(),
        dir: from.dir.clone(),
        env: each(&from.env, variable),
        resource_limits: limits.map(|limits| to::ResourceLimits {
            nofile: limits.nofile,
            nproc: limits.nproc,
        }),
        user: from.user.clone(),
        log_source: from.log_source.clone(),
        suppress_log_output: from.suppress_log_output,
        volume_mounted_files: each(&from.volume_mounted_files, file),
    }
}

fn egress_rule(from: &from::SecurityGroupRule) -> to::SecurityGroupRule {
    to::SecurityGroupRule {
        protocol: from.protocol.clone(),
        destinations: from.destinations.clone(),
        ports: from.ports.clone().unwrap_or_default(),
        port_range: from.port_range.as_ref().map(|range| to::PortRange {
            start: range.start,
            end: range.end,
        }),
        icmp_info: from.icmp_info.as_ref().map(|info| to::IcmpInfo {
            kind: info.kind,
            code: info.code,
        }),
        log: from.log,
        annotations: from.annotations.clone(),
    }
}

fn dependency(from: &from::CachedDependency) -> to::CachedDependency {
    to::CachedDependency {
        name: from.name.clone(),
        from: from.from.clone(),
        to: from.to.clone(),
        cache_key: from.cache_key.clone(),
        log_source: from.log_source.clone(),
        checksum_algorithm: from.checksum_algorithm.clone(),
        checksum_value: from.checksum_value.clone(),
    }
}

fn volume_mount(from: &from::VolumeMount) -> to::VolumeMount {
    to::VolumeMount {
        driver: from.driver.clone(),
        container_dir: from.container_dir.clone(),
        mode: from.mode.clone(),
        shared: from.shared.as_ref().map(|shared| to::SharedDevice {
            volume_id: shared.volume_id.clone(),
            mount_config: shared.mount_config.clone(),
        }),
    }
}

fn layer(from: &from::ImageLayer) -> to::ImageLayer {
    to::ImageLayer {
        name: from.name.clone(),
        url: from.url.clone(),
        destination_path: from.destination_path.clone(),
        layer_type: match from.layer_type {
            None | Some(from::LayerType::Invalid) => 0,
            Some(from::LayerType::Shared) => 1,
            Some(from::LayerType::Exclusive) => 2,
        },
        media_type: match from.media_type {
            None | Some(from::MediaType::Invalid) => 0,
            Some(from::MediaType::Tgz) => 1,
            Some(from::MediaType::Tar) => 2,
            Some(from::MediaType::Zip) => 3,
        },
        digest_algorithm: match from.digest_algorithm {
            None | Some(from::DigestAlgorithm::Invalid) => 0,
            Some(from::DigestAlgorithm::Sha256) => 1,
            Some(from::DigestAlgorithm::Sha512) => 2,
        },
        digest_value: from.digest_value.clone(),
    }
}

fn metric_tag(from: &from::MetricTagValue) -> to::MetricTagValue {
    to::MetricTagValue {
        fixed: from.fixed.clone(),
        dynamic: match from.dynamic {
            None | Some(from::DynamicValue::Invalid) => 0,
            Some(from::DynamicValue::Index) => 1,
            Some(from::DynamicValue::InstanceGuid) => 2,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diego::{desire_from_protobuf, from_json};

    /// Every public case and every one of ours reads back from its bytes as what it was.
    #[test]
    fn what_is_written_reads_back_the_same() {
        let cases =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/diego/cases");
        let mut seen = 0;
        for entry in std::fs::read_dir(cases).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let desired = from_json(&std::fs::read(&path).unwrap()).unwrap().desired;
            let read = desire_from_protobuf(&desire_to_protobuf(&desired)).unwrap();
            assert_eq!(read, desired, "{}", path.display());
            seen += 1;
        }
        assert!(seen > 30);
    }
}
