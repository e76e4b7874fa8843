//! Users of a container, with what Garden says and assumes of them.

use std::path::{Path, PathBuf};

use portlayer::archive::Root;
use portlayer::users;
use thiserror::Error;

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

/// Finds `name`, `uid`, `uid:gid` or `name:group`. A number need not be in the files; root is 0 even where it is not.
/// Blocks.
pub(super) fn look_up(root: &Root, text: &str) -> Result<User, UserError> {
    // What comes after the first colon is the group.
    let (asked, group) = match text.split_once(':') {
        Some((asked, group)) => (asked, Some(group)),
        None => (text, None),
    };
    let mut found = users::look_up(root, text);
    if let (Err(users::UserError::Unknown { what: "user", .. }), "root") = (&found, asked) {
        found = users::look_up(root, &format!("0:{}", group.unwrap_or_default()));
    }
    let found = found.map_err(UserError::of)?;
    let fallback = if found.uid == 0 { "/root" } else { "/" };
    let asked = if asked.is_empty() { "root" } else { asked };
    Ok(User {
        name: found.name.unwrap_or_else(|| asked.to_owned()),
        uid: found.uid,
        gid: found.gid,
        groups: found.groups,
        home: found.home.unwrap_or_else(|| fallback.to_owned()),
    })
}

impl UserError {
    fn of(error: users::UserError) -> Self {
        match error {
            users::UserError::Unknown {
                what: "group",
                name,
            } => UserError::Group(name),
            users::UserError::Unknown { name, .. } => UserError::User(name),
            users::UserError::File(file, _) => UserError::File(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(passwd: &str, group: &str, text: &str) -> Result<User, UserError> {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(etc.join("passwd"), passwd).unwrap();
        std::fs::write(etc.join("group"), group).unwrap();
        look_up(&Root::open(directory.path()).unwrap(), text)
    }

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
        assert_eq!(find("", "logs:x:40:\n", "root:logs").unwrap().gid, 40);
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
