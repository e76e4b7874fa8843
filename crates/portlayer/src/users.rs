//! Users and groups of a root file system, as its own `/etc/passwd` and `/etc/group` know them.
//!
//! Both files belong to whoever made the root and are hostile: they are opened inside the root (so that a link cannot
//! name a file of the host), must be regular files, and are read only up to a bound.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::archive::Root;

/// The largest passwd or group file that is read, in bytes.
const FILE_BYTES: u64 = 4 << 20;

/// Who a process is to be, with the ids of the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// Name, when the user is known there.
    pub name: Option<String>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Groups the user is in besides, in ascending order; none when a group was asked for explicitly.
    pub groups: Vec<u32>,
    /// Home directory, when the user is known there and it is absolute.
    pub home: Option<String>,
}

/// Why a user cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Not in the files, or without a number there.
    #[error("{what} {name:?} is not known in the image")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A file cannot be read: no regular file, too large, or the kernel's refusal.
    #[error("cannot read {0} of the image")]
    File(&'static str, #[source] io::Error),
}

/// Finds `user`, `uid`, `user:group`, `uid:gid` or the like; empty is 0:0. A number need not be in the files; a missing
/// file is an empty one. Blocks.
///
/// # Errors
/// [`UserError`].
pub fn look_up(root: &Root, text: &str) -> Result<User, UserError> {
    let passwd = read(root, "etc/passwd").map_err(|error| UserError::File("/etc/passwd", error))?;
    let group = read(root, "etc/group").map_err(|error| UserError::File("/etc/group", error))?;
    find(&passwd, &group, text)
}

fn find(passwd: &str, group: &str, text: &str) -> Result<User, UserError> {
    let (user, given_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    // name:password:uid:gid:comment:home:shell
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| match number {
            Some(number) => fields.get(2).and_then(|field| field.parse().ok()) == Some(number),
            None => {
                fields.first() == Some(&user)
                    && fields.get(2).is_some_and(|uid| uid.parse::<u32>().is_ok())
            }
        });
    let name = entry.as_ref().and_then(|fields| fields.first().copied());
    let own = |at: usize| {
        entry
            .as_ref()
            .and_then(|fields| fields.get(at)?.parse::<u32>().ok())
    };
    let uid = match (number, own(2)) {
        (Some(number), _) => number,
        (None, Some(uid)) => uid,
        (None, None) => {
            return Err(UserError::Unknown {
                what: "user",
                name: user.to_owned(),
            });
        }
    };
    // name:password:gid:member,member
    let groups = || {
        group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
    };
    let gid = match given_group {
        None => own(3).unwrap_or(0),
        Some(given) => match given.parse() {
            Ok(gid) => gid,
            Err(_) => groups()
                .find(|fields| fields.first() == Some(&given))
                .and_then(|fields| fields.get(2)?.parse().ok())
                .ok_or_else(|| UserError::Unknown {
                    what: "group",
                    name: given.to_owned(),
                })?,
        },
    };
    // A group given explicitly is meant to be the only one.
    let further: BTreeSet<u32> = match (given_group, name) {
        (None, Some(name)) => groups()
            .filter(|fields| {
                fields
                    .get(3)
                    .is_some_and(|members| members.split(',').any(|member| member == name))
            })
            .filter_map(|fields| fields.get(2)?.parse().ok())
            .filter(|&further| further != gid)
            .collect(),
        _ => BTreeSet::new(),
    };
    let home = entry
        .as_ref()
        .and_then(|fields| fields.get(5))
        .filter(|home| home.starts_with('/'))
        .map(|home| (*home).to_owned());
    Ok(User {
        name: name.filter(|name| !name.is_empty()).map(str::to_owned),
        uid,
        gid,
        groups: further.into_iter().collect(),
        home,
    })
}

/// The text of a file in the root; empty when there is none. Lines that are not UTF-8 lose what is not.
fn read(root: &Root, path: &str) -> io::Result<String> {
    // Not to be held up by a FIFO.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match root.open_at(Path::new(path), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno.into()),
    };
    let refused = |rule| Err(io::Error::new(io::ErrorKind::InvalidData, rule));
    if !file.metadata()?.is_file() {
        return refused("it is not a regular file");
    }
    let mut bytes = Vec::new();
    if file.take(FILE_BYTES + 1).read_to_end(&mut bytes)? as u64 > FILE_BYTES {
        return refused("it is larger than 4 MiB");
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\nbroken\nodd:x:nan:1::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:40:root,web\naudio:x:41:other\n";

    #[test]
    fn names_and_numbers() {
        let web = User {
            name: Some("web".into()),
            uid: 33,
            gid: 34,
            groups: vec![40],
            home: Some("/srv".into()),
        };
        assert_eq!(find(PASSWD, GROUP, "web").unwrap(), web);
        assert_eq!(find(PASSWD, GROUP, "33").unwrap(), web);
        assert_eq!(
            find(PASSWD, GROUP, "web:audio").unwrap(),
            User {
                gid: 41,
                groups: vec![],
                ..web.clone()
            }
        );
        assert_eq!(
            find(PASSWD, GROUP, "1000:2000").unwrap(),
            User {
                uid: 1000,
                gid: 2000,
                ..User::default()
            }
        );
        assert_eq!(
            find(PASSWD, GROUP, "1000").unwrap(),
            User {
                uid: 1000,
                ..User::default()
            }
        );
        assert_eq!(find(PASSWD, GROUP, "").unwrap().uid, 0);
        assert_eq!(find("", "", "").unwrap(), User::default());
    }

    #[test]
    fn unknown_ones_are_refused() {
        for text in ["nobody", "odd", "web:nogroup", "-1", "4294967296"] {
            assert!(
                matches!(find(PASSWD, GROUP, text), Err(UserError::Unknown { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn a_link_out_of_the_root_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("etc/passwd")).unwrap();
        // The link names itself inside the root.
        assert!(matches!(
            look_up(&Root::open(root.path()).unwrap(), "root"),
            Err(UserError::File("/etc/passwd", _))
        ));
    }
}
