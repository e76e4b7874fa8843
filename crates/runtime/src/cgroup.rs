//! Control groups: which hierarchies there are, what a group used, and its removal.
//!
//! Three layouts exist: v1 (a hierarchy per controller), hybrid (v1 plus a unified one without controllers) and v2 (the unified one
//! alone). The layout is read from the mount table and never assumed.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use portlayer::runtime::ContainerStats;

/// The mounted hierarchies.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Mount point and controllers of each v1 hierarchy.
    v1: Vec<(PathBuf, Vec<String>)>,
    unified: Option<PathBuf>,
    favordynmods: bool,
}

/// What a group used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time in nanoseconds.
    pub(crate) cpu_ns: Option<u64>,
    /// Highest memory use in bytes.
    pub(crate) memory_peak_bytes: Option<u64>,
    /// Processes the kernel killed for memory.
    pub(crate) oom_kills: u64,
}

impl Layout {
    /// Reads the mount table.
    pub(crate) fn detect() -> io::Result<Layout> {
        Ok(Layout::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Layout {
        let mut layout = Layout {
            v1: Vec::new(),
            unified: None,
            favordynmods: false,
        };
        for line in mountinfo.lines() {
            // man proc_pid_mountinfo: "id parent dev root target options [optional...] - type source super-options"
            let Some((mount, file_system)) = line.split_once(" - ") else {
                continue;
            };
            let Some(target) = mount.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut fields = file_system.split(' ');
            let kind = fields.next();
            let options: Vec<&str> = fields.nth(1).unwrap_or_default().split(',').collect();
            layout.favordynmods |= kind.is_some_and(|kind| kind.starts_with("cgroup"))
                && options.contains(&"favordynmods");
            match kind {
                Some("cgroup2") if layout.unified.is_none() => layout.unified = Some(target),
                Some("cgroup") => layout.v1.push((
                    target,
                    options.iter().map(|option| (*option).to_owned()).collect(),
                )),
                _ => {}
            }
        }
        layout
    }

    /// `v1`, `hybrid`, `v2` or `none`.
    pub(crate) fn mode(&self) -> &'static str {
        match (self.v1.is_empty(), &self.unified) {
            (false, None) => "v1",
            (false, Some(_)) => "hybrid",
            (true, Some(_)) => "v2",
            (true, None) => "none",
        }
    }

    /// Whether attaching a process is fast on an idle machine (reference: performance.md 3.1).
    pub(crate) fn favordynmods(&self) -> bool {
        self.favordynmods
    }

    /// The file that lists and takes the threads of the group a thread is in, by what its `/proc/thread-self/cgroup` says: of
    /// the unified hierarchy, else of any.
    pub(crate) fn threads_file(&self, own: &str) -> Option<PathBuf> {
        // man cgroups(7): "hierarchy-id:controllers:path", the controllers empty for the unified hierarchy.
        let mut groups = own.lines().filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            Some((controllers, path.trim_start_matches('/')))
        });
        match &self.unified {
            Some(unified) => {
                let (_, path) = groups.find(|(controllers, _)| controllers.is_empty())?;
                Some(unified.join(path).join("cgroup.threads"))
            }
            None => groups.find_map(|(controllers, path)| {
                let target = self.controller(controllers.split(',').next()?)?;
                Some(target.join(path).join("tasks"))
            }),
        }
    }

    fn controller(&self, name: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(_, options)| options.iter().any(|option| option == name))
            .map(|(target, _)| target.as_path())
    }

    /// The group's directory in every hierarchy, whether it exists or not.
    fn directories(&self, group: &str) -> Vec<PathBuf> {
        let below = group.trim_start_matches('/');
        self.v1
            .iter()
            .map(|(target, _)| target)
            .chain(&self.unified)
            .map(|target| target.join(below))
            .collect()
    }

    /// What a group used; missing files are `None`. Read it before containerd deletes the group.
    pub(crate) fn usage(&self, group: &str) -> Usage {
        let below = group.trim_start_matches('/');
        if self.v1.is_empty() {
            let Some(unified) = &self.unified else {
                return Usage::default();
            };
            let directory = unified.join(below);
            return Usage {
                cpu_ns: keyed(&directory.join("cpu.stat"), "usage_usec")
                    .map(|micros| micros.saturating_mul(1000)),
                memory_peak_bytes: number(&directory.join("memory.peak")),
                oom_kills: keyed(&directory.join("memory.events"), "oom_kill").unwrap_or(0),
            };
        }
        let memory = self.controller("memory").map(|target| target.join(below));
        Usage {
            cpu_ns: self
                .controller("cpuacct")
                .and_then(|target| number(&target.join(below).join("cpuacct.usage"))),
            memory_peak_bytes: memory
                .as_ref()
                .and_then(|directory| number(&directory.join("memory.max_usage_in_bytes"))),
            oom_kills: memory
                .and_then(|directory| keyed(&directory.join("memory.oom_control"), "oom_kill"))
                .unwrap_or(0),
        }
    }

    /// What a group uses now; missing files are `None`.
    pub(crate) fn stats(&self, group: &str) -> ContainerStats {
        let below = group.trim_start_matches('/');
        let of = |controller: &str, file: &str| {
            let target = match &self.unified {
                Some(unified) if self.v1.is_empty() => unified,
                _ => self.controller(controller)?,
            };
            number(&target.join(below).join(file))
        };
        let usage = self.usage(group);
        let memory = match self.v1.is_empty() {
            true => of("memory", "memory.current"),
            false => of("memory", "memory.usage_in_bytes"),
        };
        ContainerStats {
            cpu_ns: usage.cpu_ns,
            memory_bytes: memory,
            memory_peak_bytes: usage.memory_peak_bytes,
            pids: of("pids", "pids.current"),
            // Without a memory controller the count of kills is not known to be 0.
            oom_kills: memory.map(|_| usage.oom_kills),
        }
    }

    /// Every group below and including `group`, by its path within a hierarchy.
    pub(crate) fn groups(&self, group: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for directory in self.directories(group) {
            for path in tree(&directory) {
                if let Ok(below) = path.strip_prefix(&directory) {
                    found.insert(
                        Path::new(group)
                            .join(below)
                            .to_string_lossy()
                            .trim_end_matches('/')
                            .to_owned(),
                    );
                }
            }
        }
        found
    }

    /// Processes in the group and below.
    pub(crate) fn processes(&self, group: &str) -> BTreeSet<i32> {
        self.directories(group)
            .iter()
            .flat_map(|directory| tree(directory))
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|text| {
                text.lines()
                    .filter_map(|line| line.parse().ok())
                    .collect::<Vec<i32>>()
            })
            .collect()
    }

    /// Kills every process in the group until none is left, then removes the directories. Idempotent. Blocks for at most `limit`.
    pub(crate) fn remove(&self, group: &str, limit: Duration) -> io::Result<()> {
        let started = Instant::now();
        loop {
            let processes = self.processes(group);
            if !processes.is_empty() {
                for pid in processes {
                    crate::host::kill(pid);
                }
            } else {
                match self.remove_directories(group) {
                    // A killed process leaves its group a moment after it stopped to be listed.
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                    other => return other,
                }
            }
            if started.elapsed() > limit {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("processes in cgroup {group} do not end"),
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn remove_directories(&self, group: &str) -> io::Result<()> {
        for directory in self.directories(group) {
            // Children come after their parents in the walk.
            for path in tree(&directory).into_iter().rev() {
                match fs::remove_dir(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// A directory and all below it, parents first; nothing when it does not exist.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        open.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        found.push(directory);
    }
    found
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::Layout;

    const V1: &str = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
    const UNIFIED: &str = "32 25 0:28 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw,favordynmods\n";

    #[test]
    fn the_three_layouts_are_told_apart() {
        assert_eq!(Layout::parse(V1).mode(), "v1");
        assert_eq!(Layout::parse(&format!("{V1}{UNIFIED}")).mode(), "hybrid");
        let v2 = Layout::parse(UNIFIED);
        assert_eq!((v2.mode(), v2.favordynmods()), ("v2", true));
        assert_eq!(
            Layout::parse("1 1 0:1 / / rw - ext4 /dev/vda rw\n").mode(),
            "none"
        );
    }

    #[test]
    fn the_own_group_is_that_of_the_unified_hierarchy_or_of_any() {
        let own = "12:cpu,cpuacct:/a\n11:memory:/b\n1:name=systemd:/c\n0::/d/e\n";
        let file = |mounts: &str| Layout::parse(mounts).threads_file(own);
        assert_eq!(file(V1), Some("/sys/fs/cgroup/cpu/a/tasks".into()));
        let unified = Some("/sys/fs/cgroup/unified/d/e/cgroup.threads".into());
        assert_eq!(file(UNIFIED), unified);
        assert_eq!(file(&format!("{V1}{UNIFIED}")), unified);
        assert_eq!(file(""), None);
        assert_eq!(Layout::parse(V1).threads_file("0::/\n"), None);
    }

    #[test]
    fn a_controller_is_found_in_a_shared_hierarchy() {
        assert_eq!(
            Layout::parse(V1).controller("cpuacct"),
            Some("/sys/fs/cgroup/cpu".as_ref())
        );
    }
}
