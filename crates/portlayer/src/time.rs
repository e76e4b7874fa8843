//! Wall-clock time stamps. Order is never taken from them: that is what sequences and revisions are for. How long something
//! takes is measured on a clock nobody sets.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanoseconds since the Unix epoch. Text form: RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The current wall-clock time.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }
}

/// A moment on the clock nobody sets: nanoseconds since the boot, sleep included, and the boot it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    boot: u128,
    nanos: u64,
}

impl Moment {
    /// Now; `None` where the kernel does not say which boot this is.
    pub fn now() -> Option<Self> {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let time = Duration::try_from(time).ok()?;
        Some(Self {
            boot: boot()?,
            nanos: u64::try_from(time.as_nanos()).ok()?,
        })
    }

    /// How long ago it was; `None` when the machine was started again since.
    pub fn elapsed(self) -> Option<Duration> {
        let now = Self::now().filter(|now| now.boot == self.boot)?;
        Some(Duration::from_nanos(now.nanos.saturating_sub(self.nanos)))
    }
}

/// The kernel's random name for this boot.
fn boot() -> Option<u128> {
    static BOOT: OnceLock<Option<u128>> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
    })
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.9}"),
            Err(_) => write!(f, "@{}ns", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Self);
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        i64::try_from(time.as_nanosecond())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_knows_how_long_ago_it_was_but_not_over_a_boot() {
        let mut moment = Moment::now().unwrap();
        moment.nanos -= 1_000_000_000;
        let elapsed = moment.elapsed().unwrap();
        assert!(elapsed >= Duration::from_secs(1), "{elapsed:?}");
        moment.boot += 1;
        assert_eq!(moment.elapsed(), None);
    }
}
