//! A store in memory, with failures and delays on demand: for tests of everything above a store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncReadExt;

use super::{MountSource, Progress, Put, Store, StoreCapabilities, StoreError, Stored};
use crate::element::{Checksum, DataStream, ElementId, Record, Spec, StoreKeys, Summing};

/// The verbs a failure can be put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// [`Store::put`], before the stream is read.
    Put,
    /// [`Store::put`], after everything was stored but before it is answered: bytes of it must not stay.
    PutLate,
    /// [`Store::remove`].
    Remove,
    /// [`Store::export`].
    Export,
    /// [`Store::attach`].
    Attach,
    /// [`Store::detach`].
    Detach,
    /// [`Store::ensure_freespace`].
    EnsureFreespace,
    /// [`Store::list`].
    List,
    /// [`Store::sweep`].
    Sweep,
}

/// Bytes in memory. Cloning shares it.
#[derive(Clone)]
pub struct MemoryStore {
    capabilities: StoreCapabilities,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Content by digest of the id.
    bytes: BTreeMap<String, Vec<u8>>,
    attached: BTreeMap<String, BTreeSet<ElementId>>,
    faults: BTreeMap<Verb, Vec<StoreError>>,
    delays: BTreeMap<Verb, Duration>,
    calls: BTreeMap<Verb, u64>,
    away: Option<String>,
    hangs: bool,
    capacity: Option<u64>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(StoreCapabilities {
            parent_image: true,
            parent_volume: true,
            data: true,
            bounded: true,
            persistent: true,
        })
    }
}

impl MemoryStore {
    /// An empty store that can do what `capabilities` say.
    pub fn new(capabilities: StoreCapabilities) -> Self {
        Self {
            capabilities,
            inner: Arc::default(),
        }
    }

    /// The next call of `verb` fails with `error`; several are used up in order.
    pub fn fail(&self, verb: Verb, error: StoreError) {
        self.lock().faults.entry(verb).or_default().push(error);
    }

    /// Every call of `verb` takes so long from now on.
    pub fn delay(&self, verb: Verb, by: Duration) {
        self.lock().delays.insert(verb, by);
    }

    /// With a reason the store cannot be reached, with `None` it can again.
    pub fn set_away(&self, reason: Option<&str>) {
        self.lock().away = reason.map(str::to_owned);
    }

    /// Health probes never answer, as on a dead network mount.
    pub fn set_hanging(&self, hangs: bool) {
        self.lock().hangs = hangs;
    }

    /// The store holds at most so many bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = Some(bytes);
    }

    /// How often a verb was called.
    pub fn calls(&self, verb: Verb) -> u64 {
        self.lock().calls.get(&verb).copied().unwrap_or_default()
    }

    /// What is stored of an element.
    pub fn content(&self, id: &ElementId) -> Option<Vec<u8>> {
        self.lock().bytes.get(&id.digest_hex()).cloned()
    }

    /// Stores bytes nobody has a record of, as a crash would leave them.
    pub fn leave_garbage(&self, id: &ElementId) {
        self.lock()
            .bytes
            .insert(id.digest_hex(), b"garbage".to_vec());
    }

    /// How many elements have bytes here.
    pub fn len(&self) -> usize {
        self.lock().bytes.len()
    }

    /// Nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self, verb: Verb) -> Result<(), StoreError> {
        let delay = {
            let mut inner = self.lock();
            *inner.calls.entry(verb).or_default() += 1;
            inner.delays.get(&verb).copied()
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        let mut inner = self.lock();
        if let Some(reason) = &inner.away {
            return Err(StoreError::Unavailable(reason.clone()));
        }
        match inner.faults.get_mut(&verb) {
            Some(errors) if !errors.is_empty() => Err(errors.remove(0)),
            _ => Ok(()),
        }
    }

    fn found(&self, id: &ElementId) -> Result<Vec<u8>, StoreError> {
        self.content(id)
            .ok_or_else(|| StoreError::Missing(id.to_string()))
    }
}

async fn read(put: &mut Put<'_>) -> Result<(Vec<u8>, Checksum), StoreError> {
    let mut bytes = Vec::new();
    let mut summing = Summing::default();
    let mut buffer = vec![0; 64 << 10];
    while let Some(data) = &mut put.data {
        let count = data.read(&mut buffer).await.map_err(StoreError::Data)?;
        if count == 0 {
            break;
        }
        summing.update(&buffer[..count]);
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(progress) = &put.progress {
            progress(Progress::Read {
                bytes: summing.bytes(),
            });
        }
    }
    let actual = summing.finish();
    match put.checksum {
        Some(expected) if expected != actual => {
            Err(StoreError::ChecksumMismatch { expected, actual })
        }
        _ => Ok((bytes, actual)),
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn capabilities(&self) -> StoreCapabilities {
        self.capabilities
    }

    async fn put(&self, mut put: Put<'_>) -> Result<Stored, StoreError> {
        self.enter(Verb::Put).await?;
        let key = StoreKeys::from([("memory".to_owned(), put.id.digest_hex())]);
        let stored = if put.data.is_some() {
            let (bytes, checksum) = read(&mut put).await?;
            let size = bytes.len() as u64;
            {
                let mut inner = self.lock();
                let have_bytes = inner.capacity.unwrap_or(u64::MAX);
                if size > have_bytes {
                    return Err(StoreError::InsufficientSpace {
                        need_bytes: size,
                        have_bytes,
                    });
                }
                inner.bytes.insert(put.id.digest_hex(), bytes);
            }
            Stored {
                keys: key,
                checksum: Some(checksum),
                size,
                ..Stored::default()
            }
        } else if let (Some(parent), Spec::Image(_)) = (put.parent, put.spec) {
            Stored {
                keys: crate::element::store_keys(&parent.body)
                    .cloned()
                    .unwrap_or_default(),
                metadata_only: true,
                ..Stored::default()
            }
        } else {
            let bytes = match put.parent {
                Some(parent) => self.found(&parent.id)?,
                None => Vec::new(),
            };
            self.lock().bytes.insert(put.id.digest_hex(), bytes);
            Stored {
                keys: key,
                ..Stored::default()
            }
        };
        if let Err(error) = self.enter(Verb::PutLate).await {
            self.lock().bytes.remove(&put.id.digest_hex());
            return Err(error);
        }
        Ok(stored)
    }

    async fn remove(&self, id: &ElementId, _keys: &StoreKeys) -> Result<(), StoreError> {
        self.enter(Verb::Remove).await?;
        self.lock().bytes.remove(&id.digest_hex());
        Ok(())
    }

    async fn export(&self, record: &Record) -> Result<DataStream, StoreError> {
        self.enter(Verb::Export).await?;
        Ok(Box::pin(Cursor::new(self.found(&record.id)?)))
    }

    fn shares_backing(&self, parent: &Record) -> bool {
        crate::element::store_keys(&parent.body)
            .and_then(|keys| keys.get("memory"))
            .is_some_and(|digest| self.lock().bytes.contains_key(digest))
    }

    async fn attach(
        &self,
        record: &Record,
        executor: &ElementId,
    ) -> Result<MountSource, StoreError> {
        self.enter(Verb::Attach).await?;
        self.found(&record.id)?;
        let digest = record.id.digest_hex();
        self.lock()
            .attached
            .entry(digest.clone())
            .or_default()
            .insert(executor.clone());
        Ok(MountSource::Path(format!("/memory/{digest}").into()))
    }

    async fn detach(
        &self,
        id: &ElementId,
        _keys: &StoreKeys,
        executor: &ElementId,
    ) -> Result<(), StoreError> {
        self.enter(Verb::Detach).await?;
        if let Some(executors) = self.lock().attached.get_mut(&id.digest_hex()) {
            executors.remove(executor);
        }
        Ok(())
    }

    async fn ensure_freespace(
        &self,
        record: &Record,
        freespace_bytes: u64,
    ) -> Result<(), StoreError> {
        self.enter(Verb::EnsureFreespace).await?;
        self.found(&record.id)?;
        let inner = self.lock();
        if inner
            .attached
            .get(&record.id.digest_hex())
            .is_some_and(|executors| !executors.is_empty())
        {
            return Err(StoreError::InUse("it is attached"));
        }
        match inner.capacity {
            Some(have_bytes) if have_bytes < freespace_bytes => {
                Err(StoreError::InsufficientSpace {
                    need_bytes: freespace_bytes,
                    have_bytes,
                })
            }
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<String>, StoreError> {
        self.enter(Verb::List).await?;
        Ok(self.lock().bytes.keys().cloned().collect())
    }

    async fn sweep(&self, digest_hex: &str) -> Result<(), StoreError> {
        self.enter(Verb::Sweep).await?;
        self.lock().bytes.remove(digest_hex);
        Ok(())
    }

    async fn health(&self) -> Result<(), StoreError> {
        if self.lock().hangs {
            std::future::pending::<()>().await;
        }
        match &self.lock().away {
            Some(reason) => Err(StoreError::Unavailable(reason.clone())),
            None => Ok(()),
        }
    }
}
