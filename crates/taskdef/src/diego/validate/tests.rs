use std::path::Path;

use serde_json::Value;

use super::*;
use crate::diego::parse::from_json;

fn invalid(json: &str, rules: &Rules) -> Invalid {
    let parsed = from_json(json.as_bytes()).unwrap();
    validate(&parsed.desired, rules).unwrap_err()
}

fn of(definition: &str) -> Invalid {
    invalid(
        &format!(
            r#"{{"task_guid":"g","domain":"d","rootfs":"a:b","action":{{"run":{{"path":"p","user":"u"}}}},{definition}}}"#
        ),
        &Rules::default(),
    )
}

/// The table that Diego's own validator was asked for (`tests/fixtures/diego/validation.json`).
#[test]
fn diegos_own_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/diego/validation.json");
    let table: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(table.len() >= 48);
    for row in table {
        let name = row["name"].as_str().unwrap();
        let mut task = row["task"].clone();
        if let Some(repeat) = task["annotation"].get("@repeat") {
            let count = usize::try_from(repeat[1].as_u64().unwrap()).unwrap();
            task["annotation"] = repeat[0].as_str().unwrap().repeat(count).into();
        }
        let parsed = from_json(&serde_json::to_vec(&task).unwrap()).unwrap();
        let strict = Rules { strict: true };
        let answer = match validate(&parsed.desired, &strict) {
            Ok(()) => "OK".to_owned(),
            Err(invalid) => invalid.to_string(),
        };
        let expected = match row["ours"].as_str().unwrap() {
            "same" => row["diego"].as_str().unwrap(),
            ours if ours.starts_with("Invalid") => ours,
            ours if ours.starts_with("accept") => "OK",
            // Strict mode is Diego's.
            ours if ours.starts_with("may accept") => row["diego"].as_str().unwrap(),
            ours => {
                assert!(ours.starts_with("reject"), "{name}: {ours}");
                assert_ne!(answer, "OK", "{name}");
                continue;
            }
        };
        assert_eq!(answer, expected, "{name}");
    }
}

#[test]
fn the_default_mode_accepts_the_seeds_example_user() {
    let json = r#"{"task_guid":"g","domain":"d","rootfs":"a:b","action":{"run":{"path":"p","user":"u"}},
        "image_layers":[{"url":"u","destination_path":"/x","layer_type":"EXCLUSIVE","media_type":"TGZ","digest_algorithm":"SHA256","digest_value":"d"}]}"#;
    let parsed = from_json(json.as_bytes()).unwrap();
    assert_eq!(validate(&parsed.desired, &Rules::default()), Ok(()));
    let error = invalid(json, &Rules { strict: true });
    assert_eq!(error.to_string(), "Invalid field: legacy_download_user");
}

#[test]
fn texts_come_in_diegos_order_with_paths() {
    let error = invalid(
        r#"{"task_guid":"","domain":"","rootfs":"x","disk_mb":-1,"memory_mb":-1,"max_pids":-2,"log_rate_limit":{"bytes_per_second":-2},
            "action":{"serial":{"actions":[{"run":{"path":"p","user":"u"}},{"timeout":{"timeout_ms":0}},null]}},
            "egress_rules":[{"protocol":"tcp"},{"protocol":"x"}],"image_password":"p"}"#,
        &Rules::default(),
    );
    let text = "Invalid field: task_guid, Invalid field: domain, Invalid field: rootfs, Invalid field: action, \
                Invalid field: action, Invalid field: timeout_ms, Invalid field: action at index 2, \
                Invalid field: memory_mb, Invalid field: disk_mb, Invalid field: log_rate_limit, Invalid field: max_pids, \
                Invalid field: egress_rules, Invalid field: egress_rules, Invalid field: image_username";
    assert_eq!(error.to_string(), text);
    let paths: Vec<_> = error
        .problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert!(
        paths.contains(&"action.serial.actions[1].timeout.action"),
        "{paths:?}"
    );
    assert!(paths.contains(&"egress_rules[0].destinations"), "{paths:?}");
}

#[test]
fn holes_of_diego_are_closed() {
    for (definition, path) in [
        (
            r#""egress_rules":[{"protocol":"tcp","destinations":["1.2.3.4"],"ports":[70000]}]"#,
            "egress_rules[0].ports",
        ),
        (
            r#""egress_rules":[{"protocol":"all","destinations":["1.2.3.4-::1"]}]"#,
            "egress_rules[0].destinations[0]",
        ),
        (
            r#""egress_rules":[{"protocol":"icmp","destinations":["1.2.3.4"],"icmp_info":{"type":300,"code":0}}]"#,
            "egress_rules[0].icmp_info.type",
        ),
        (
            r#""volume_mounted_files":[{"path":"../../x","content":"x"}]"#,
            "volume_mounted_files[0].path",
        ),
        (
            r#""volume_mounted_files":[{"path":"/etc/x","content":"x"}]"#,
            "volume_mounted_files[0].path",
        ),
        (
            r#""metric_tags":{"a":{"dynamic":"INDEX"}}"#,
            "metric_tags.a.dynamic",
        ),
        (
            r#""volume_mounts":[{"driver":"d","container_dir":"/m","mode":"x","shared":{"volume_id":"v"}}]"#,
            "volume_mounts[0].mode",
        ),
        (
            r#""volume_mounts":[{"driver":"d","container_dir":"/m","mode":"r"}]"#,
            "volume_mounts[0].shared",
        ),
        (r#""env":[{"name":"a=b","value":""}]"#, "env[0]"),
    ] {
        let error = of(definition);
        assert_eq!(error.problems[0].path, path, "{definition}");
        assert!(error.to_string().starts_with("Invalid field: "), "{error}");
    }
    let long = "x".repeat(MAX_ENV_BYTES);
    assert_eq!(
        of(&format!(r#""env":[{{"name":"a","value":"{long}"}}]"#)).problems[0].path,
        "env[0]"
    );
}

#[test]
fn root_file_systems() {
    for good in [
        "preloaded:cflinuxfs4",
        "docker:///a/b#tag",
        "docker://host:5000/a@sha256#00",
        "preloaded+layer:x?layer=y",
        "a:",
        "a:%zz",
    ] {
        assert!(is_url_with_scheme(good), "{good}");
    }
    for bad in [
        "",
        "x",
        ":invalid-url",
        "1a:b",
        "a b:c",
        "a:\u{1}",
        "docker:///%zz",
        "docker://host:port/x",
        "/a:b",
    ] {
        assert!(!is_url_with_scheme(bad), "{bad}");
    }
}
