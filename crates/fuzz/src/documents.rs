//! The documents of containers, from specs made of bytes.

use portlayer::fuzz::documents;
use portlayer::task::{ExecutorSpec, Isolation, Limits, Rlimit, TaskSpec};

/// Takes values off the front of bytes; at their end everything is empty.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn number(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => u64::from(self.byte()),
            1 => u64::MAX - u64::from(self.byte()),
            2 => u64::from(self.byte()) << 24,
            _ => (0..8).fold(0, |n, _| (n << 8) | u64::from(self.byte())),
        }
    }

    fn maybe(&mut self) -> Option<u64> {
        (self.byte().is_multiple_of(2)).then(|| self.number())
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.byte() % 32).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn texts(&mut self) -> Vec<String> {
        (0..self.byte() % 5).map(|_| self.text()).collect()
    }

    fn pairs(&mut self) -> Vec<(String, String)> {
        (0..self.byte() % 5)
            .map(|_| (self.text(), self.text()))
            .collect()
    }
}

/// OCI documents: whatever the checks of fields let through can be written down, without hooks, and says what was asked.
pub fn oci(bytes: &[u8]) {
    let mut from = Bytes(bytes);
    let flags = from.byte();
    let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let capabilities = |from: &mut Bytes<'_>| -> Vec<String> {
        let known = ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_BPF"];
        (0..from.byte() % 4)
            .map(|_| known[usize::from(from.byte() % 4)].to_owned())
            .collect()
    };
    let executor = ExecutorSpec {
        hostname: (flags & 1 != 0).then(|| from.text()),
        limits: Limits {
            memory_bytes: from.maybe(),
            memory_swap_bytes: from.maybe(),
            cpu_shares: from.maybe(),
            cpu_quota_us: from.maybe().map(u64::cast_signed),
            pids: from.maybe().map(short),
            disk_bytes: None,
            disk_inodes: None,
        },
        isolation: Isolation {
            privileged: flags & 2 != 0,
            add_capabilities: capabilities(&mut from),
            drop_capabilities: capabilities(&mut from),
            allow_new_privileges: flags & 4 != 0,
            host_users: flags & 8 != 0,
            compat_programs: flags & 16 != 0,
        },
    };
    let known = ["nofile", "nproc", "as", "core"];
    let task = TaskSpec {
        argv: from.texts(),
        env: from.pairs(),
        cwd: (flags & 16 != 0).then(|| from.text()),
        user: (flags & 32 != 0).then(|| from.text()),
        extra_gids: (0..from.byte() % 4).map(|_| short(from.number())).collect(),
        terminal: flags & 64 != 0,
        rlimits: (0..from.byte() % 3)
            .map(|_| Rlimit {
                name: known[usize::from(from.byte() % 4)].to_owned(),
                soft: from.number(),
                hard: from.number(),
            })
            .collect(),
        ..TaskSpec::default()
    };
    let Some((container, process)) = documents(&executor, &task, flags & 128 != 0) else {
        return;
    };
    assert!(container.get("hooks").is_none());
    assert!(
        container["linux"]["namespaces"]
            .as_array()
            .is_some_and(|all| all.len() >= 4)
    );
    let privileged = executor.isolation.privileged;
    assert_eq!(container["linux"]["seccomp"].is_object(), !privileged);
    let args: Vec<&str> = process["args"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|arg| arg.as_str())
        .collect();
    assert!(!args.is_empty());
    assert!(args.iter().all(|arg| !arg.contains('\0')));
    let env = process["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str());
    assert!(
        env.into_iter()
            .all(|one| !one.contains('\0') && one.find('=').is_some_and(|at| at > 0))
    );
    assert!(
        process["cwd"]
            .as_str()
            .is_some_and(|cwd| cwd.starts_with('/'))
    );
}
