//! What keeps an executor apart from the host, for people.

use portlayer::compose::Security;

/// The profile as lines of name and value.
pub(crate) fn security(security: &Security) -> Vec<(String, Vec<u8>)> {
    let mut lines: Vec<(String, Vec<u8>)> = Vec::new();
    let yes = |value: bool| if value { "yes" } else { "no" };
    let seccomp = security.seccomp.as_ref().map_or_else(
        || "none".to_owned(),
        |filter| {
            let (allowed, version) = (filter.allowed, filter.version);
            format!(
                "{allowed} calls allowed, others {} (list {version})",
                filter.otherwise
            )
        },
    );
    let none = || "none".to_owned();
    let users = match (security.own_users, security.ids) {
        (true, Some(ids)) => format!(
            "0 to {} are {} and up on the host",
            ids.count - 1,
            ids.first
        ),
        (true, None) => "its own, decided at its first start".to_owned(),
        (false, _) => "the host's".to_owned(),
    };
    for (name, value) in [
        ("executor", security.executor.to_string()),
        ("privileged", yes(security.privileged).to_owned()),
        ("user ids", users),
        ("name spaces", security.namespaces.join(" ")),
        (
            "no new privileges",
            yes(security.no_new_privileges).to_owned(),
        ),
        ("seccomp", seccomp),
        ("apparmor", security.apparmor.clone().unwrap_or_else(none)),
        ("devices", security.devices.to_string()),
        ("hooks", none()),
    ] {
        lines.push((name.to_owned(), value.into()));
    }
    let sysctls = security
        .sysctls
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let limits = security.limits.as_object().into_iter().flatten();
    let limits = limits.map(|(name, value)| format!("{name} {value}"));
    for (name, values) in [
        ("capabilities", security.capabilities.clone()),
        ("masked", security.masked_paths.clone()),
        ("read-only", security.read_only_paths.clone()),
        ("sysctls", sysctls.collect()),
        ("limits", limits.collect()),
    ] {
        list(&mut lines, name, values);
    }
    for (id, task) in &security.tasks {
        let user = if task.user.is_empty() {
            "0:0"
        } else {
            &task.user
        };
        let rlimits = task.rlimits.iter();
        let rlimits = rlimits.map(|(name, (soft, hard))| format!(" {name}={soft}:{hard}"));
        let held = match task.capabilities.len() {
            0 => "no capabilities".to_owned(),
            count => format!("{count} capabilities"),
        };
        let text = format!("{id} as {user}, {held},{}", rlimits.collect::<String>());
        lines.push(("task".to_owned(), text.into()));
    }
    lines
}

/// One value a line; the name stands once.
fn list(lines: &mut Vec<(String, Vec<u8>)>, name: &str, values: Vec<String>) {
    let values = if values.is_empty() {
        vec!["none".to_owned()]
    } else {
        values
    };
    for (at, value) in values.into_iter().enumerate() {
        let name = if at == 0 { name } else { "" };
        lines.push((name.to_owned(), value.into()));
    }
}
