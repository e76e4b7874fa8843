//! Power cuts, simulated: what the disk may hold when the power goes, built and opened.
//!
//! Writers work on a ledger while every flush is watched; sled runs two at a time. What the `db` file held when a
//! flush began is durable when that flush is done; what differs from the durable file when the next one begins is on
//! its way to the disk. A state is what was durable
//! plus nothing, a part or all of what was on its way: a prefix torn at a byte, or any choice of 512-byte sectors.
//! Each state is opened as a ledger of its own and must hold every write that was acknowledged before that flush.

mod states;

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{AuditEntry, Ledger, LedgerConfig, LedgerError, Verb};
use crate::Operation;
use crate::element::{Body, ElementId, Kind, Metadata, Record, State};
use crate::event::Change;
use crate::time::Timestamp;

/// The unit a disk writes whole.
const SECTOR: usize = 512;

/// What to try.
#[derive(Debug, Clone)]
pub struct PowerCut {
    /// An empty directory to work in; left as it is afterwards.
    pub directory: PathBuf,
    /// States to build and open.
    pub states: u32,
    /// Writers at once.
    pub writers: u32,
    /// Transactions of each writer.
    pub writes: u32,
    /// Chooses the states; the same seed need not give the same ones, for the writers race.
    pub seed: u64,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PowerReport {
    /// Flushes seen while the writers worked.
    pub flushes: u64,
    /// States built and opened.
    pub states: u64,
    /// States that did not open; what the errors said.
    pub unopenable: Vec<String>,
    /// States in which an acknowledged write was missing or wrong; which.
    pub lost: Vec<String>,
    /// States in which a transaction was there by half, or verify found something.
    pub torn: Vec<String>,
}

impl PowerReport {
    /// Nothing was lost, torn or unopenable.
    pub fn is_clean(&self) -> bool {
        self.unopenable.is_empty() && self.lost.is_empty() && self.torn.is_empty()
    }
}

/// What differs from the durable file.
struct Difference {
    /// The sectors, in order.
    sectors: Vec<(usize, Vec<u8>)>,
    /// Length of the file.
    len: usize,
}

/// What happened to the file, in order.
enum Step {
    /// A flush began.
    Begins(Moment),
    /// A flush was done: this has become durable.
    Durable(Difference),
}

/// One flush: what was on its way to the disk when it began.
struct Moment {
    on_its_way: Difference,
    /// Per writer, how many of its transactions had been acknowledged.
    acknowledged: Vec<u64>,
}

/// What the writers left behind.
struct Recorded {
    /// A copy of the ledger's directory before they began.
    base: PathBuf,
    /// Its `db` file.
    durable: Vec<u8>,
    /// Every flush since.
    steps: Vec<Step>,
}

struct Watch {
    file: (u64, u64),
    durable: Vec<u8>,
    acknowledged: Arc<[AtomicU64]>,
    steps: Vec<Step>,
    /// Flushes begun.
    begun: u64,
    /// The youngest flush that is done.
    done: u64,
}

/// The file as a flush found it.
pub(super) struct Seen {
    number: u64,
    content: Vec<u8>,
}

static WATCHING: AtomicBool = AtomicBool::new(false);
static WATCH: Mutex<Option<Watch>> = Mutex::new(None);
/// One simulation at a time: there is one watch.
static RUNNING: Mutex<()> = Mutex::new(());

pub(super) fn watching() -> bool {
    WATCHING.load(Ordering::Acquire)
}

/// Called at the start of every flush of any sled file in the program while a simulation runs.
pub(super) fn flush_begins(fd: BorrowedFd<'_>) -> Option<Seen> {
    let mut watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let watch = watch.as_mut()?;
    let file = File::from(fd.try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok()?;
    if (metadata.dev(), metadata.ino()) != watch.file {
        return None;
    }
    // Counted before the file is read, so that everything counted was durable before.
    let acknowledged = watch.acknowledged.iter().map(|n| n.load(Ordering::SeqCst));
    let acknowledged = acknowledged.collect();
    let mut content = vec![0; usize::try_from(metadata.len()).ok()?];
    file.read_exact_at(&mut content, 0).ok()?;
    watch.begun += 1;
    watch.steps.push(Step::Begins(Moment {
        on_its_way: difference(&watch.durable, &content),
        acknowledged,
    }));
    Some(Seen {
        number: watch.begun,
        content,
    })
}

/// Called when such a flush is done, before its caller learns of it.
pub(super) fn flush_is_done(seen: Seen) {
    let mut watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(watch) = watch.as_mut()
        && seen.number > watch.done
    {
        let durable = difference(&watch.durable, &seen.content);
        watch.steps.push(Step::Durable(durable));
        watch.durable = seen.content;
        watch.done = seen.number;
    }
}

fn difference(durable: &[u8], now: &[u8]) -> Difference {
    let sectors = now
        .chunks(SECTOR)
        .enumerate()
        .filter(|(n, sector)| durable.chunks(SECTOR).nth(*n) != Some(*sector))
        .map(|(n, sector)| (n * SECTOR, sector.to_vec()))
        .collect();
    Difference {
        sectors,
        len: now.len(),
    }
}

impl PowerCut {
    /// Runs the simulation. Blocking, for tens of milliseconds per state. Errors: only those of the undisturbed
    /// ledger and of the directory; what the states show is in the report.
    pub fn run(&self) -> Result<PowerReport, LedgerError> {
        let recorded = self.record()?;
        self.try_states(recorded)
    }

    /// Lets the writers work and records every flush.
    fn record(&self) -> Result<Recorded, LedgerError> {
        let _one = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let source = LedgerConfig::new(self.directory.join("source"));
        let ledger = Ledger::open(&source)?;
        let base = self.directory.join("base");
        copy(&source.path, &base)?;
        let acknowledged: Arc<[AtomicU64]> = (0..self.writers).map(|_| AtomicU64::new(0)).collect();
        let durable = std::fs::read(base.join("db"))?;
        let metadata = std::fs::metadata(source.path.join("db"))?;
        *WATCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(Watch {
            file: (metadata.dev(), metadata.ino()),
            durable: durable.clone(),
            acknowledged: acknowledged.clone(),
            steps: Vec::new(),
            begun: 0,
            done: 0,
        });
        WATCHING.store(true, Ordering::Release);
        let worked = self.work(&ledger, &acknowledged);
        WATCHING.store(false, Ordering::Release);
        let watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(ledger);
        worked?;
        Ok(Recorded {
            base,
            durable,
            steps: watch.map(|watch| watch.steps).unwrap_or_default(),
        })
    }

    /// Every writer writes its transactions one after the other; all writers at once.
    fn work(&self, ledger: &Ledger, acknowledged: &[AtomicU64]) -> Result<(), LedgerError> {
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..self.writers)
                .zip(acknowledged)
                .map(|(writer, acknowledged)| {
                    scope.spawn(move || {
                        for write in 1..=u64::from(self.writes) {
                            futures::executor::block_on(transaction(ledger, writer, write))?;
                            acknowledged.store(write, Ordering::SeqCst);
                        }
                        Ok::<(), LedgerError>(())
                    })
                })
                .collect();
            for writer in writers {
                writer.join().map_err(|_| LedgerError::Panicked)??;
            }
            Ok(())
        })
    }
}

/// Transaction `write` of a writer: an element of its own, the writer's counter, an audit row and an event. Some
/// elements are long, and every fifth transaction removes an old one.
async fn transaction(ledger: &Ledger, writer: u32, write: u64) -> Result<(), LedgerError> {
    ledger
        .write(move |txn| {
            let record = element(writer, write);
            txn.put(&record)?;
            if write.is_multiple_of(5) {
                txn.remove(&id(writer, write - 3));
            }
            let mut counter = element(writer, 0);
            counter.revision = write;
            txn.put(&counter)?;
            let operation = Operation {
                id: write.to_string(),
                actor: "power".into(),
            };
            let entry = AuditEntry::done(Verb::Update, write - 1, write);
            txn.audit(&operation, &counter.id, entry)?;
            txn.emit(&record.id, write, Change::Created);
            Ok(())
        })
        .await
}

/// The element that transaction `write` of a writer makes; 0 is its counter.
fn element(writer: u32, write: u64) -> Record {
    let bytes = match write % 16 {
        7 => 40_000,
        _ => usize::from(u8::try_from(write % 251).unwrap_or(0)) * 4,
    };
    let mut rw = Metadata::new();
    rw.insert(
        "filler".into(),
        write.to_le_bytes().repeat(bytes.div_ceil(8)),
    );
    Record {
        id: id(writer, write),
        parent: None,
        owner: None,
        checksum: None,
        size: 0,
        ro: Metadata::new(),
        rw,
        revision: write,
        created: Timestamp::from_nanos(0),
        modified: Timestamp::from_nanos(0),
        state: State::Ready,
        hidden: false,
        body: Body::Volume(Box::default()),
    }
}

fn id(writer: u32, write: u64) -> ElementId {
    ElementId::new(Kind::Volume, "power", &format!("{writer}/{write}"))
        .expect("numbers are segments of a name")
}

/// Copies a ledger's directory.
fn copy(from: &Path, to: &Path) -> Result<(), LedgerError> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power_cut(writes: u32, states: u32) -> (tempfile::TempDir, PowerCut) {
        // Nothing here needs a real disk: what is durable is computed.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let directory = directory.unwrap();
        let power_cut = PowerCut {
            directory: directory.path().to_owned(),
            states,
            writers: 4,
            writes,
            seed: 1,
        };
        (directory, power_cut)
    }

    #[test]
    fn no_state_after_a_power_cut_lost_an_acknowledged_write() {
        let (_directory, power_cut) = power_cut(60, 300);
        let report = power_cut.run().unwrap();
        assert_eq!(report.states, 300);
        assert!(report.flushes >= 60, "{report:?}");
        assert!(report.is_clean(), "{report:?}");
    }

    #[test]
    fn a_write_acknowledged_before_its_flush_is_found() {
        let (_directory, power_cut) = power_cut(10, 40);
        let mut recorded = power_cut.record().unwrap();
        for step in &mut recorded.steps {
            if let Step::Begins(moment) = step {
                moment.acknowledged = vec![10; 4];
            }
        }
        let report = power_cut.try_states(recorded).unwrap();
        assert!(report.lost.len() > 10, "{report:?}");
    }
}
