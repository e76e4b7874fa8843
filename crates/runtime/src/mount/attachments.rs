//! Who uses which mount, remembered on disk.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portlayer::store::StoreError;

use super::{ignore_missing, is_mounted, private_directory, unmount};
use crate::image::io_failed;

/// Who uses a mount.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum User {
    /// An executor, by its digest. Remembered on disk: it may outlive us.
    Executor(String),
    /// A job of ours (fill, copy, export). Remembered in memory: it ends with us.
    Job(String),
}

/// Mounts of volumes, one directory for each: `<base>/<volume>/fs` is the mount point, `<base>/<volume>/users/<executor>`
/// an empty file for each executor. The files are the count, so it survives a restart.
#[derive(Debug, Clone)]
pub struct Attachments {
    base: PathBuf,
    jobs: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl Attachments {
    /// Below a directory of our state (made when needed).
    pub fn new(base: impl Into<PathBuf>) -> Attachments {
        Attachments {
            base: base.into(),
            jobs: Arc::default(),
        }
    }

    /// Where a volume is mounted.
    pub fn mount_point(&self, volume: &str) -> PathBuf {
        self.base.join(volume).join("fs")
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn users_directory(&self, volume: &str) -> PathBuf {
        self.base.join(volume).join("users")
    }

    /// Adds a user; mounts for the first one, by `mount` on the directory it is given. Idempotent.
    ///
    /// # Errors
    /// What `mount` says; then the user is not added.
    pub fn attach(
        &self,
        volume: &str,
        user: &User,
        mount: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<PathBuf, StoreError> {
        let target = self.mount_point(volume);
        private_directory(&target)?;
        match user {
            User::Job(job) => {
                self.jobs().insert((volume.to_owned(), job.clone()));
            }
            User::Executor(executor) => {
                let users = self.users_directory(volume);
                private_directory(&users)?;
                let mark = users.join(executor);
                fs::write(&mark, b"").map_err(|e| io_failed("record a user in", &mark, e))?;
            }
        }
        let mounted =
            is_mounted(&target).and_then(|there| if there { Ok(()) } else { mount(&target) });
        if let Err(error) = mounted {
            self.detach(volume, user)?;
            return Err(error);
        }
        Ok(target)
    }

    /// Removes a user; unmounts after the last one. Idempotent.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while something has the mount open; the user is gone, call again.
    pub fn detach(&self, volume: &str, user: &User) -> Result<(), StoreError> {
        match user {
            User::Job(job) => {
                self.jobs().remove(&(volume.to_owned(), job.clone()));
            }
            User::Executor(executor) => {
                let mark = self.users_directory(volume).join(executor);
                ignore_missing(fs::remove_file(&mark))
                    .map_err(|e| io_failed("remove a user in", &mark, e))?;
            }
        }
        if self.users(volume)?.is_empty() {
            self.release(volume)
        } else {
            Ok(())
        }
    }

    /// Unmounts whoever uses it, and removes the directories. Idempotent.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while something has the mount open.
    pub fn release(&self, volume: &str) -> Result<(), StoreError> {
        let target = self.mount_point(volume);
        unmount(&target)?;
        self.jobs().retain(|(of, _)| of != volume);
        let directory = self.base.join(volume);
        let failed = |e| io_failed("remove", &directory, e);
        // Never recursively through the mount point: were it still mounted, this would delete the volume's data.
        ignore_missing(fs::remove_dir(&target)).map_err(failed)?;
        ignore_missing(fs::remove_dir_all(directory.join("users"))).map_err(failed)?;
        ignore_missing(fs::remove_dir(&directory)).map_err(failed)
    }

    /// Forgets users an earlier process of ours left, all but the pairs of volume and executor in `used`, and unmounts
    /// what then nobody uses. Jobs of that process ended with it. Idempotent.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while something has one of the mounts open; the others are released all the same.
    pub fn release_leftovers(&self, used: &BTreeSet<(String, String)>) -> Result<(), StoreError> {
        let failed = |e| io_failed("list mounts in", &self.base, e);
        let entries = match fs::read_dir(&self.base) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        let mut outcome = Ok(());
        for entry in entries {
            let volume = entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned();
            for user in self.users(&volume)? {
                if let User::Executor(executor) = &user
                    && !used.contains(&(volume.clone(), executor.clone()))
                {
                    outcome = self.detach(&volume, &user).and(outcome);
                }
            }
            // A job that died has left a mount and no user.
            if self.users(&volume)?.is_empty() {
                outcome = self.release(&volume).and(outcome);
            }
        }
        outcome
    }

    /// Who uses a volume.
    ///
    /// # Errors
    /// The kernel's.
    pub fn users(&self, volume: &str) -> Result<Vec<User>, StoreError> {
        let mut users: Vec<User> = self
            .jobs()
            .iter()
            .filter(|(of, _)| of == volume)
            .map(|(_, job)| User::Job(job.clone()))
            .collect();
        let directory = self.users_directory(volume);
        let failed = |e| io_failed("list users in", &directory, e);
        let entries = match fs::read_dir(&directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(users),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            users.push(User::Executor(name.to_string_lossy().into_owned()));
        }
        Ok(users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executor(name: &str) -> User {
        User::Executor(name.to_owned())
    }

    #[test]
    fn executors_are_counted_across_a_restart_and_jobs_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let attachments = Attachments::new(dir.path());
        let mut mounted = 0;
        for user in [
            executor("a"),
            executor("b"),
            executor("a"),
            User::Job("put".to_owned()),
        ] {
            // Nothing is really mounted here, so every call asks for it.
            let mount = |_: &Path| {
                mounted += 1;
                Ok(())
            };
            attachments.attach("v", &user, mount).unwrap();
        }
        assert_eq!(mounted, 4);
        assert_eq!(attachments.users("v").unwrap().len(), 3);
        let again = Attachments::new(dir.path());
        assert_eq!(again.users("v").unwrap().len(), 2);
        again.detach("v", &executor("a")).unwrap();
        again.detach("v", &executor("a")).unwrap();
        assert!(again.mount_point("v").exists());
        again.detach("v", &executor("b")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        again.detach("v", &executor("b")).unwrap();
    }

    #[test]
    fn leftovers_go_and_what_is_used_stays() {
        let dir = tempfile::tempdir().unwrap();
        let attachments = Attachments::new(dir.path());
        for (volume, user) in [
            ("v", executor("a")),
            ("v", executor("b")),
            ("w", executor("b")),
            ("x", User::Job("put".to_owned())),
        ] {
            attachments.attach(volume, &user, |_| Ok(())).unwrap();
        }
        let again = Attachments::new(dir.path());
        let used = BTreeSet::from([("v".to_owned(), "a".to_owned())]);
        again.release_leftovers(&used).unwrap();
        assert_eq!(again.users("v").unwrap(), [executor("a")]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_mount_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let attachments = Attachments::new(dir.path());
        for user in [executor("a"), User::Job("put".to_owned())] {
            let result = attachments.attach("v", &user, |_| Err(StoreError::Unsupported("a test")));
            assert!(matches!(result, Err(StoreError::Unsupported(_))));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
