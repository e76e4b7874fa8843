//! Volumes of `run`: `-v`, `--mount` and `--tmpfs`.

use portlayer::store::Access;

use super::size;

/// One volume as asked for; the volume's name is made an id later, when the locations are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountArg {
    /// Id or name of the volume; `None` = a fresh tmpfs.
    pub(crate) volume: Option<String>,
    /// Absolute path inside.
    pub(crate) target: String,
    /// Read-write or read-only.
    pub(crate) access: Access,
    /// Directory below the volume's root to mount instead of it.
    pub(crate) sub_path: Option<String>,
    /// Fill an empty volume with what the image has at the target.
    pub(crate) copy_up: bool,
    /// Bytes of a tmpfs; 0 = the kernel's default.
    pub(crate) tmpfs_bytes: u64,
}

impl MountArg {
    fn new(volume: Option<&str>, target: &str) -> Self {
        Self {
            volume: volume.map(str::to_owned),
            target: target.to_owned(),
            access: Access::ReadWrite,
            sub_path: None,
            copy_up: false,
            tmpfs_bytes: 0,
        }
    }
}

/// `VOLUME:TARGET[:ro|rw]`. The target begins at the last `:/`, because names may hold colons; a target that holds
/// `:/` needs `--mount`.
pub(crate) fn volume(text: &str) -> Result<MountArg, String> {
    let (rest, access) = if let Some(rest) = text.strip_suffix(":ro") {
        (rest, Access::ReadOnly)
    } else {
        (text.strip_suffix(":rw").unwrap_or(text), Access::ReadWrite)
    };
    let expected = || format!("expected VOLUME:/TARGET[:ro], not {text:?}");
    let at = rest.rfind(":/").ok_or_else(expected)?;
    let (volume, target) = (&rest[..at], &rest[at + 1..]);
    if target.starts_with("//") {
        return Err(expected());
    }
    if volume.is_empty() || volume.starts_with(['/', '.']) {
        return Err(format!(
            "{volume:?} is no volume: host paths are not mounted; make a volume with `portlayer volume create`"
        ));
    }
    let mut mount = MountArg::new(Some(volume), target);
    mount.access = access;
    Ok(mount)
}

/// `TARGET[:size=SIZE]`: a fresh tmpfs.
pub(crate) fn tmpfs(text: &str) -> Result<MountArg, String> {
    let (target, options) = text.split_once(":size=").unwrap_or((text, ""));
    if !target.starts_with('/') {
        return Err(format!("expected /TARGET[:size=SIZE], not {text:?}"));
    }
    let mut mount = MountArg::new(None, target);
    if !options.is_empty() {
        mount.tmpfs_bytes = size(options)?;
    }
    Ok(mount)
}

/// `source=VOLUME,target=PATH[,readonly][,subpath=DIR][,copy-up]` or `type=tmpfs,target=PATH[,size=SIZE]`.
pub(crate) fn mount(text: &str) -> Result<MountArg, String> {
    let mut mount = MountArg::new(None, "");
    let mut tmpfs = false;
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .map_or((field, None), |(key, value)| (key, Some(value)));
        match (key, value) {
            ("type", Some("volume")) => tmpfs = false,
            ("type", Some("tmpfs")) => tmpfs = true,
            ("source" | "src", Some(value)) => mount.volume = Some(value.to_owned()),
            ("target" | "dst" | "destination", Some(value)) => value.clone_into(&mut mount.target),
            ("readonly" | "ro", None | Some("true")) => mount.access = Access::ReadOnly,
            ("readonly" | "ro", Some("false")) => mount.access = Access::ReadWrite,
            ("subpath" | "volume-subpath", Some(value)) => mount.sub_path = Some(value.to_owned()),
            ("copy-up", None | Some("true")) => mount.copy_up = true,
            ("copy-up", Some("false")) => mount.copy_up = false,
            ("size" | "tmpfs-size", Some(value)) => mount.tmpfs_bytes = size(value)?,
            _ => {
                return Err(format!(
                    "mount field {field:?} is not one of type, source, target, readonly, subpath, copy-up, size"
                ));
            }
        }
    }
    if !mount.target.starts_with('/') {
        return Err(format!("mount {text:?}: an absolute target is needed"));
    }
    if tmpfs == mount.volume.is_some() {
        return Err(format!(
            "mount {text:?}: either source=VOLUME or type=tmpfs is needed"
        ));
    }
    if !tmpfs && mount.tmpfs_bytes != 0 {
        return Err(format!("mount {text:?}: size is for type=tmpfs"));
    }
    if tmpfs && (mount.sub_path.is_some() || mount.copy_up) {
        return Err(format!(
            "mount {text:?}: subpath and copy-up are for volumes"
        ));
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(mount: &MountArg) -> (Option<&str>, &str, bool) {
        (
            mount.volume.as_deref(),
            &mount.target,
            mount.access == Access::ReadOnly,
        )
    }

    #[test]
    fn volumes() {
        for (text, expected) in [
            ("data:/data", (Some("data"), "/data", false)),
            ("data:/data:ro", (Some("data"), "/data", true)),
            (
                "volume://volumes/a:b:/x/y:rw",
                (Some("volume://volumes/a:b"), "/x/y", false),
            ),
        ] {
            assert_eq!(parts(&volume(text).unwrap()), expected, "{text}");
        }
        for text in [
            "",
            "data",
            "volume://volumes/a",
            ":/x",
            "/host:/x",
            "./here:/x",
            "data:rel",
            "data://x",
        ] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tmpfs_with_and_without_size() {
        assert_eq!(tmpfs("/tmp").unwrap().tmpfs_bytes, 0);
        let bounded = tmpfs("/tmp:size=64m").unwrap();
        assert_eq!(
            (bounded.target.as_str(), bounded.tmpfs_bytes),
            ("/tmp", 64 << 20)
        );
        for text in ["", "tmp", "/tmp:size=x"] {
            assert!(tmpfs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn long_form() {
        let one = mount("source=data,target=/d,readonly,subpath=a/b,copy-up").unwrap();
        assert_eq!(parts(&one), (Some("data"), "/d", true));
        assert_eq!((one.sub_path.as_deref(), one.copy_up), (Some("a/b"), true));
        assert_eq!(
            mount("type=tmpfs,target=/t,size=1k").unwrap().tmpfs_bytes,
            1024
        );
        for text in [
            "",
            "source=data",
            "target=/d",
            "source=data,target=d",
            "type=bind,source=/x,target=/d",
            "type=tmpfs,source=a,target=/d",
            "source=a,target=/d,size=1k",
            "type=tmpfs,target=/d,copy-up",
            "source=a,target=/d,colour=red",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }
}
