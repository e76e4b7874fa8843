//! The rules of roles and of what a bind sets. Pure; every refusal names the field and the rule.

use super::{JoinHow, TaskBind};
use crate::element::fields::{self, FieldError};
use crate::network::{self, RuleError};
use crate::store::Access;

fn refuse<T>(field: impl Into<String>, rule: impl Into<String>) -> Result<T, FieldError> {
    Err(FieldError {
        field: field.into(),
        rule: rule.into(),
    })
}

/// Longest path, in bytes (PATH_MAX with its final zero).
const MAX_PATH_BYTES: usize = 4095;

/// Rules of the settings of a bind.
pub(crate) fn check_bind(bind: &TaskBind) -> Result<(), FieldError> {
    if let Some(cwd) = &bind.cwd {
        fields::check_cwd("cwd", cwd)?;
    }
    if let Some(user) = &bind.user {
        fields::check_user("user", user)?;
    }
    if let Some(deadline_ms) = bind.deadline_ms {
        fields::check_deadline("deadline_ms", deadline_ms)?;
    }
    if let Some(stop) = &bind.stop {
        fields::check_stop("stop", stop)?;
    }
    if let Some(restart) = &bind.restart {
        fields::check_restart("restart", restart)?;
    }
    for (field, choice) in [("stdout", &bind.stdout), ("stderr", &bind.stderr)] {
        if let Some(choice) = choice {
            fields::check_log(field, choice)?;
        }
    }
    Ok(())
}

/// Rules of a role.
pub(crate) fn check_join(how: &JoinHow) -> Result<(), FieldError> {
    match how {
        JoinHow::Image { target, .. } if target != "/" => {
            refuse("target", "an image can only be at /")
        }
        JoinHow::Volume {
            target,
            access,
            sub_path,
            copy_up,
            tmpfs_bytes,
        } => {
            check_target("target", target)?;
            if let Some(path) = sub_path {
                check_relative("sub_path", path)?;
                if tmpfs_bytes.is_some() {
                    return refuse("sub_path", "a fresh tmpfs has no directories to mount");
                }
            }
            if tmpfs_bytes.is_some() && *access == Access::ReadOnly {
                return refuse("access", "a fresh tmpfs is of no use read-only");
            }
            if tmpfs_bytes.is_some_and(|bytes| bytes > i64::MAX as u64) {
                return refuse("tmpfs_bytes", "less than 8 EiB");
            }
            if *copy_up && *access == Access::ReadOnly {
                return refuse("copy_up", "a read-only volume is not filled");
            }
            Ok(())
        }
        JoinHow::Network(wanted) => network::check_use(wanted).map_err(FieldError::from),
        _ => Ok(()),
    }
}

impl From<RuleError> for FieldError {
    fn from(error: RuleError) -> Self {
        FieldError {
            field: error.field,
            rule: error.rule.to_owned(),
        }
    }
}

/// A mount target: absolute, normal, not the root and not where the container's own mounts are.
pub(crate) fn check_target(field: &str, target: &str) -> Result<(), FieldError> {
    check_absolute(field, target)?;
    if target == "/" {
        return refuse(field, "only an image can be at /");
    }
    for own in ["/proc", "/sys", "/dev"] {
        if target == own
            || target
                .strip_prefix(own)
                .is_some_and(|rest| rest.starts_with('/'))
        {
            return refuse(field, "/proc, /sys and /dev are the executor's own");
        }
    }
    Ok(())
}

/// An absolute path in normal form.
pub(crate) fn check_absolute(field: &str, path: &str) -> Result<(), FieldError> {
    match path.strip_prefix('/') {
        None => refuse(field, "must be absolute"),
        Some("") => Ok(()),
        Some(rest) => check_relative(field, rest),
    }
}

/// A relative path in normal form.
pub(crate) fn check_relative(field: &str, path: &str) -> Result<(), FieldError> {
    if path.len() >= MAX_PATH_BYTES {
        return refuse(field, "longer than 4095 bytes");
    }
    if path.chars().any(char::is_control) {
        return refuse(field, "holds a control character");
    }
    for segment in path.split('/') {
        match segment {
            "" => return refuse(field, "holds an empty segment"),
            "." | ".." => return refuse(field, "holds a dot segment"),
            _ if segment.len() > 255 => return refuse(field, "a segment is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}
