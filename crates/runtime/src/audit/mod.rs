//! Everything of ours, as the engine and the kernel have it; nothing is taken from the ledger.

mod reach;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use containerd_client::services::v1::{
    ListContentRequest, ListImagesRequest, ListStatusesRequest, snapshots::ListSnapshotsRequest,
};
use portlayer::runtime::{Finding, FindingClass, RuntimeError, Scope};

use crate::{
    cgroup::Layout,
    client::Client,
    container,
    engine::{Places, is_shim},
    error::{failed, refused},
    host, lease,
    probe::SNAPSHOTTER,
    process,
    root::blocking,
    snapshot,
};

/// Lists it all, sorted, each thing once.
pub(crate) async fn audit(
    client: &Client,
    places: &Places,
    layout: &Layout,
) -> Result<Vec<Finding>, RuntimeError> {
    let mut found = engine(client).await?;
    // A socket tells nothing of whose it is, but its name follows from the container's.
    let mut containers: BTreeSet<String> = found.iter().filter_map(|f| f.owner.clone()).collect();
    let of_class = |class| move |f: &&Finding| f.class == class;
    containers.extend(
        found
            .iter()
            .filter(of_class(FindingClass::Container))
            .map(|f| f.name.clone()),
    );
    containers.extend(names(&places.directory.join("containers")));
    let (places, layout) = (places.clone(), layout.clone());
    found.extend(blocking(move || kernel(&places, &layout, &containers)).await?);
    Ok(found.into_iter().collect())
}

fn finding(class: FindingClass, name: impl Into<String>, owner: Option<String>) -> Finding {
    Finding {
        class,
        name: name.into(),
        owner,
    }
}

async fn engine(client: &Client) -> Result<BTreeSet<Finding>, RuntimeError> {
    let mut found = BTreeSet::new();
    let mut graph = reach::Graph::default();
    let mut snapshots = Vec::new();
    for process in process::list(client).await? {
        found.insert(finding(
            FindingClass::Process,
            process.id.clone(),
            Some(process.id),
        ));
    }
    for container in container::list(client).await? {
        let owner = container.labels.get(container::EXECUTOR).cloned();
        found.insert(finding(FindingClass::Container, container.id, owner));
    }
    let request = ListSnapshotsRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        filters: Vec::new(),
    };
    let mut pages = client
        .snapshots()
        .list(request)
        .await
        .map_err(refused("list", "snapshots"))?
        .into_inner();
    while let Some(page) = pages
        .message()
        .await
        .map_err(refused("list", "snapshots"))?
    {
        for info in page.info {
            graph.parents.insert(info.name.clone(), info.parent);
            // The label of a layer names the image that came first; who keeps it now is for the walk to say.
            let owner = info.labels.get(snapshot::ELEMENT).cloned();
            let rooted = info.labels.contains_key(snapshot::GC_ROOT);
            snapshots.push((info.name, owner.filter(|_| rooted)));
        }
    }
    for name in lease::list(client).await? {
        let owner = Scope::container_of(&name).map(|container| container.as_str().to_owned());
        found.insert(finding(FindingClass::Lease, name, owner));
    }
    let request = ListStatusesRequest {
        filters: Vec::new(),
    };
    let ingests = client
        .content()
        .list_statuses(request)
        .await
        .map_err(refused("list", "ingests"))?
        .into_inner();
    for ingest in ingests.statuses {
        found.insert(finding(FindingClass::Ingest, ingest.r#ref, None));
    }
    let request = ListContentRequest {
        filters: Vec::new(),
    };
    let mut pages = client
        .content()
        .list(request)
        .await
        .map_err(refused("list", "content"))?
        .into_inner();
    while let Some(page) = pages.message().await.map_err(refused("list", "content"))? {
        for info in page.info {
            graph.content.insert(info.digest, info.labels);
        }
    }
    let request = ListImagesRequest {
        filters: Vec::new(),
    };
    let images = client
        .images()
        .list(request)
        .await
        .map_err(refused("list", "images"))?
        .into_inner();
    for image in images.images {
        let owner = image
            .name
            .strip_prefix("pl-")
            .unwrap_or(&image.name)
            .to_owned();
        graph
            .images
            .extend(image.target.map(|manifest| (owner, manifest.digest)));
    }
    let owners = reach::owners(&graph);
    for (name, label) in snapshots {
        let owner = label.or_else(|| owners.get(&name).cloned());
        found.insert(finding(FindingClass::Snapshot, name, owner));
    }
    for digest in graph.content.into_keys() {
        let owner = owners.get(&digest).cloned();
        found.insert(finding(FindingClass::Content, digest, owner));
    }
    Ok(found)
}

fn kernel(
    places: &Places,
    layout: &Layout,
    containers: &BTreeSet<String>,
) -> Result<BTreeSet<Finding>, RuntimeError> {
    let mut found = BTreeSet::new();
    let shims =
        host::processes(|process| is_shim(process, places)).map_err(failed("list", "processes"))?;
    for shim in shims {
        found.insert(finding(
            FindingClass::Shim,
            shim.pid.to_string(),
            shim.flag("-id").map(str::to_owned),
        ));
    }
    for container in containers {
        let socket = places.shim_socket(container);
        if socket.exists() {
            let (name, owner) = (socket.to_string_lossy(), container.clone());
            found.insert(finding(FindingClass::Shim, name, Some(owner)));
        }
    }
    for group in layout.groups(&places.cgroup_parent) {
        let below = group
            .strip_prefix(&places.cgroup_parent)
            .unwrap_or(&group)
            .trim_start_matches('/')
            .to_owned();
        // The parent itself stays as long as the engine.
        if let Some(container) = below
            .split('/')
            .next()
            .filter(|container| !container.is_empty())
        {
            found.insert(finding(
                FindingClass::Cgroup,
                &group,
                Some(container.to_owned()),
            ));
        }
    }
    // containers/<container>/netns
    let kept_depth = places.directory.components().count() + 3;
    for mount in
        host::mounts_below(&places.directory).map_err(failed("read", "/proc/self/mountinfo"))?
    {
        let container = component_after(&mount, &places.directory.join("containers"));
        let kept = container.is_some()
            && mount.ends_with("netns")
            && mount.components().count() == kept_depth;
        // The pool is the engine's own; what is in it is of containers.
        if mount == places.disks() {
            continue;
        }
        let class = if kept {
            FindingClass::NetworkNamespace
        } else {
            FindingClass::Mount
        };
        let owner = container.or_else(|| volume_of(&mount));
        found.insert(finding(class, mount.to_string_lossy(), owner));
    }
    let roots = places.roots();
    for mount in host::mounts_below(&roots).map_err(failed("read", "/proc/self/mountinfo"))? {
        let owner = component_after(&mount, &roots);
        found.insert(finding(FindingClass::Mount, mount.to_string_lossy(), owner));
    }
    for container in names(&places.directory.join("containers")) {
        found.insert(finding(
            FindingClass::Directory,
            &container,
            Some(container.clone()),
        ));
        for path in fifos(&places.directory.join("containers").join(&container)) {
            found.insert(finding(
                FindingClass::Fifo,
                path.to_string_lossy(),
                Some(container.clone()),
            ));
        }
    }
    for container in names(&places.disks()) {
        let path = places.disks().join(&container);
        found.insert(finding(
            FindingClass::Directory,
            path.to_string_lossy(),
            Some(container),
        ));
    }
    for name in names(&places.runc_root().join(&places.namespace)) {
        found.insert(finding(FindingClass::RuncState, name.clone(), Some(name)));
    }
    for name in names(&places.directory.join("logs")) {
        found.insert(finding(FindingClass::Log, name.clone(), Some(name)));
    }
    let pool = places.disks_file();
    let devices = loop_devices(&places.directory).into_iter();
    found.extend(devices.filter(|device| device.owner.as_deref().map(Path::new) != Some(&pool)));
    found.extend(descriptors(&places.directory).map_err(failed("read", "/proc/self/fd"))?);
    Ok(found)
}

/// The path component right below a directory.
fn component_after(path: &Path, directory: &Path) -> Option<String> {
    let below = path.strip_prefix(directory).ok()?;
    Some(
        below
            .components()
            .next()?
            .as_os_str()
            .to_string_lossy()
            .into_owned(),
    )
}

/// The volume a mount is for: its digest is a component of the path.
fn volume_of(mount: &Path) -> Option<String> {
    mount
        .iter()
        .filter_map(|component| component.to_str())
        .find(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_owned)
}

/// Names in a directory; none when it is not there.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// FIFOs of a container and its processes. Does not go into its root.
fn fifos(container: &Path) -> Vec<PathBuf> {
    let processes = container.join("p");
    let directories = names(&processes)
        .into_iter()
        .map(|name| processes.join(name))
        .chain([container.to_owned()]);
    directories
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_fifo()))
        .map(|entry| entry.path())
        .collect()
}

/// Loop devices whose file is ours.
fn loop_devices(directory: &Path) -> Vec<Finding> {
    names(Path::new("/sys/block"))
        .into_iter()
        .filter(|name| name.starts_with("loop"))
        .filter_map(|name| {
            let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
            let file = file.trim_end().trim_end_matches(" (deleted)");
            Path::new(file)
                .starts_with(directory)
                .then(|| finding(FindingClass::LoopDevice, name, Some(file.to_owned())))
        })
        .collect()
}

/// Descriptors of this process to files of ours that were deleted: what they held is freed only when they are closed.
fn descriptors(directory: &Path) -> std::io::Result<Vec<Finding>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        let text = target.to_string_lossy();
        if let Some(deleted) = text.strip_suffix(" (deleted)")
            && Path::new(deleted).starts_with(directory)
        {
            found.push(finding(
                FindingClass::Descriptor,
                deleted,
                component_after(Path::new(deleted), &directory.join("containers")),
            ));
        }
    }
    Ok(found)
}
