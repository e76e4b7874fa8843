use super::*;
use crate::diego::read_json;

fn settings() -> Settings {
    Settings {
        preloaded: BTreeMap::from([("fs".to_owned(), "image://images/fs".parse().unwrap())]),
        volume_drivers: BTreeMap::from([("local".to_owned(), "volumes".to_owned())]),
        ..Settings::default()
    }
}

fn planned(json: &str) -> Plan {
    let settings = settings();
    let desired = read_json(json.as_bytes(), &settings.rules).unwrap();
    plan(
        &desired.task_guid,
        desired.definition.as_deref().unwrap(),
        &settings,
    )
    .unwrap()
}

/// Every public case that is valid, against the plan in `tests/fixtures/diego/plans`. `UPDATE_EXPECT=1` writes them.
#[test]
fn golden_plans() {
    let fixtures =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/diego/plans");
    let mut seen = 0;
    for entry in std::fs::read_dir(&fixtures).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        seen += 1;
        let plan = planned(&std::fs::read_to_string(&path).unwrap());
        let got = format!("{plan:#?}\n");
        let golden = path.with_extension("plan");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&golden, &got).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap();
        assert!(
            got == expected,
            "{}: the plan is now\n{got}",
            path.display()
        );
    }
    assert!(seen >= 2);
}

fn sources(action: &Action, found: &mut Vec<String>) {
    match action {
        Action::Run(run) => found.push(run.source.clone()),
        Action::Download(download) => found.push(download.archive.source.clone()),
        Action::Upload(upload) => found.push(upload.source.clone()),
        Action::EmitProgress(progress) => {
            found.push(format!("progress {}", progress.source));
            sources(&progress.action, found);
        }
        Action::Timeout { action, .. } | Action::Try(action) => sources(action, found),
        Action::Parallel(actions) | Action::Serial(actions) | Action::Codependent(actions) => {
            actions.iter().for_each(|action| sources(action, found));
        }
    }
}

#[test]
fn log_sources_are_passed_down_as_by_diegos_transformer() {
    let run = r#"{"run":{"path":"p","user":"u"}}"#;
    let text = |log_guid: &str| {
        format!(
            r#"{{"task_guid":"g","domain":"d","rootfs":"preloaded:fs","log_guid":"{log_guid}","log_source":"TASK","action":{{"parallel":{{"actions":[
                {run},
                {{"timeout":{{"timeout_ms":1,"log_source":"A","action":{run}}}}},
                {{"serial":{{"log_source":"B","actions":[{run}]}}}},
                {{"emit_progress":{{"log_source":"C","action":{run}}}}},
                {{"try":{{"log_source":"D","action":{run}}}}},
                {{"codependent":{{"log_source":"E","actions":[{{"run":{{"path":"p","user":"u","log_source":"F"}}}}]}}}}]}}}}}}"#
        )
    };
    let mut found = Vec::new();
    sources(&planned(&text("guid")).action, &mut found);
    assert_eq!(found, ["TASK", "A", "TASK", "progress C", "TASK", "D", "F"]);
    let mut found = Vec::new();
    let silent = planned(&text(""));
    sources(&silent.action, &mut found);
    assert_eq!(
        found,
        ["LOG", "LOG", "LOG", "progress LOG", "LOG", "LOG", "LOG"]
    );
    assert_eq!(silent.logs.stream, None);
}

#[test]
fn what_the_node_does_not_have() {
    let plan_of = |definition: &str| {
        let json = format!(
            r#"{{"task_guid":"g","domain":"d","action":{{"run":{{"path":"p","user":"u"}}}},{definition}}}"#
        );
        let desired = read_json(json.as_bytes(), &Rules::default()).unwrap();
        plan("g", desired.definition.as_deref().unwrap(), &settings())
    };
    use crate::diego::Rules;
    let driver = plan_of(
        r#""rootfs":"preloaded:fs","volume_mounts":[{"driver":"x","container_dir":"/m","mode":"r","shared":{"volume_id":"v"}}]"#,
    );
    assert_eq!(
        driver.unwrap_err().to_string(),
        "found no compatible cell with required volume drivers"
    );
    assert_eq!(
        plan_of(r#""rootfs":"some:thing""#).unwrap_err(),
        PlanError::Rootfs
    );
    let unknown = plan_of(r#""rootfs":"preloaded:other""#).unwrap();
    assert_eq!(
        unknown.root,
        Root::Unknown {
            name: "other".to_owned()
        }
    );
}

#[test]
fn weights_and_limits() {
    let limits_of = |definition: &str| {
        planned(&format!(r#"{{"task_guid":"g","domain":"d","rootfs":"preloaded:fs","action":{{"run":{{"path":"p","user":"u"}}}},{definition}}}"#)).limits
    };
    assert_eq!(limits_of(r#""cpu_weight":0"#), Limits::default());
    let limits = limits_of(r#""cpu_weight":900,"memory_mb":128,"disk_mb":16,"max_pids":7"#);
    let expected = Limits {
        memory_bytes: Some(128 << 20),
        disk_bytes: Some(16 << 20),
        cpu_shares: Some(1024),
        pids: Some(7),
    };
    assert_eq!(limits, expected);
    assert_eq!(limits_of(r#""cpu_weight":42"#).cpu_shares, Some(430));
    assert_eq!(limits_of(r#""cpu_weight":1"#).cpu_shares, Some(10));
}

/// JSON with Diego's own names in it, of any shape.
fn json() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
    use proptest::prelude::*;
    use serde_json::Value;
    const NAMES: [&str; 24] = [
        "task_guid",
        "domain",
        "rootfs",
        "env",
        "name",
        "value",
        "action",
        "run",
        "path",
        "user",
        "download",
        "upload",
        "from",
        "to",
        "timeout",
        "timeout_ms",
        "parallel",
        "serial",
        "actions",
        "egress_rules",
        "protocol",
        "destinations",
        "ports",
        "image_layers",
    ];
    let text = prop_oneof![
        Just("preloaded:fs".to_owned()),
        Just("tcp".to_owned()),
        Just("1.2.3.4".to_owned()),
        ".{0,8}"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(NAMES.to_vec()), inner), 0..6)
                .prop_map(|entries| Value::Object(
                    entries
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect()
                )),
        ]
    })
}

proptest::proptest! {
    /// Whatever is sent, there is an answer; and what is valid can be planned.
    #[test]
    fn arbitrary_json_never_panics(value in json(), text in ".{0,64}") {
        let rules = crate::diego::Rules::default();
        let _ = read_json(text.as_bytes(), &rules);
        if let Ok(desired) = read_json(value.to_string().as_bytes(), &rules) {
            let definition = desired.definition.as_deref().unwrap();
            if let Err(error) = plan(&desired.task_guid, definition, &settings()) {
                proptest::prop_assert!(!matches!(error, PlanError::NotValidated { .. }), "{}", error);
            }
        }
    }
}
