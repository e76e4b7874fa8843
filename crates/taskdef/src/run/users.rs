//! Users of a container: looked up in its own passwd and group files, which are not to be trusted.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// The largest passwd or group file that is read, in bytes.
pub(super) const FILE_BYTES: u64 = 4 << 20;

/// Who a process is, with the ids of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// As the container knows it, else as it was asked for.
    pub(crate) name: String,
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
    /// Home directory; `/` when none is known.
    pub(crate) home: String,
}

impl User {
    /// A path as this user means it: a relative one is below its home.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        Path::new(&self.home).join(path)
    }
}

/// Why there is no such user. The texts are Garden's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum UserError {
    /// Not in the passwd file.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// Not in the group file.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    /// A file that cannot be read.
    #[error("unable to read {0} of the container")]
    File(&'static str),
}

/// Finds `name`, `uid`, `uid:gid` or `name:group`. A number need not be in the files; without a passwd file the one
/// name is root.
pub(super) fn find(passwd: &str, group: &str, text: &str) -> Result<User, UserError> {
    let (user, given_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "root" } else { user };
    let number: Option<u32> = user.parse().ok();
    // name:password:uid:gid:comment:home:shell
    let entries = || {
        passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
    };
    let entry = entries().find(|fields| match number {
        Some(number) => fields.get(2).and_then(|field| field.parse().ok()) == Some(number),
        None => {
            fields.first() == Some(&user)
                && fields.get(2).is_some_and(|uid| uid.parse::<u32>().is_ok())
        }
    });
    let field = |at: usize| entry.as_ref().and_then(|fields| fields.get(at).copied());
    let uid = match (number, field(2).and_then(|uid| uid.parse().ok())) {
        (Some(number), _) => number,
        (None, Some(uid)) => uid,
        (None, None) if user == "root" => 0,
        (None, None) => return Err(UserError::User(user.to_owned())),
    };
    // name:password:gid:member,member
    let groups = || {
        group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
    };
    let gid = match given_group {
        None => field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0),
        Some(given) => match given.parse() {
            Ok(gid) => gid,
            Err(_) => groups()
                .find(|fields| fields.first() == Some(&given))
                .and_then(|fields| fields.get(2)?.parse().ok())
                .ok_or_else(|| UserError::Group(given.to_owned()))?,
        },
    };
    let name = field(0).filter(|name| !name.is_empty()).unwrap_or(user);
    let member = |fields: &Vec<&str>| {
        fields
            .get(3)
            .is_some_and(|members| members.split(',').any(|member| member == name))
    };
    // A group given explicitly is meant to be the only one.
    let further: std::collections::BTreeSet<u32> = match given_group {
        Some(_) => Default::default(),
        None => groups()
            .filter(member)
            .filter_map(|fields| fields.get(2)?.parse().ok())
            .filter(|other| *other != gid)
            .collect(),
    };
    let home = field(5).filter(|home| home.starts_with('/'));
    let fallback = if uid == 0 { "/root" } else { "/" };
    Ok(User {
        name: name.to_owned(),
        uid,
        gid,
        groups: further.into_iter().collect(),
        home: home.unwrap_or(fallback).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0::/root:/bin/sh\nvcap:x:2000:2000::/home/vcap:/bin/sh\nbad:x:no:1::/:\n";
    const GROUP: &str = "root:x:0:\nvcap:x:2000:\nlogs:x:40:root,vcap\n";

    #[test]
    fn names_and_numbers() {
        let vcap = find(PASSWD, GROUP, "vcap").unwrap();
        assert_eq!(
            (
                vcap.uid,
                vcap.gid,
                vcap.home.as_str(),
                vcap.groups.as_slice()
            ),
            (2000, 2000, "/home/vcap", &[40][..])
        );
        assert_eq!(vcap.place("app/x"), Path::new("/home/vcap/app/x"));
        assert_eq!(vcap.place("/etc"), Path::new("/etc"));
        assert_eq!(find(PASSWD, GROUP, "2000").unwrap(), vcap);
        let other = find(PASSWD, GROUP, "1234:5678").unwrap();
        assert_eq!(
            (other.uid, other.gid, other.home.as_str()),
            (1234, 5678, "/")
        );
        assert_eq!(find(PASSWD, GROUP, "vcap:logs").unwrap().gid, 40);
        assert_eq!(find("", "", "root").unwrap().home, "/root");
    }

    #[test]
    fn who_is_not_there() {
        let error = find(PASSWD, GROUP, "nobody").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            find("", "", "vcap").unwrap_err(),
            UserError::User("vcap".to_owned())
        );
        assert_eq!(
            find(PASSWD, GROUP, "bad").unwrap_err(),
            UserError::User("bad".to_owned())
        );
        assert_eq!(
            find(PASSWD, GROUP, "vcap:x").unwrap_err(),
            UserError::Group("x".to_owned())
        );
    }
}
