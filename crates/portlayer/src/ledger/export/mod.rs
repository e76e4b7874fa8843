//! The whole ledger as JSON lines, and back.
//!
//! ```text
//! {"ledger":1,"schema":1}
//! {"key":"<hex>","about":{...},"bytes":"<hex>"}      one per stored entry, in the order of keys
//! {"lines":<count before this>,"sum":"sha256:<of every byte before this line>"}
//! ```
//!
//! `about` is for people and programs that look at an export: what the entry is, without metadata values,
//! environments or definitions, which may be secrets. `bytes` is the entry itself and alone is what counts on the
//! way back, so a round trip loses nothing, not even a damaged record. An export is as confidential as the ledger.

#[cfg(test)]
mod tests;

use std::io::{BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::audit::AuditRow;
use super::{Index, Ledger, LedgerConfig, LedgerError, codec, durable, keys, pieces, schema};
use crate::element::{Checksum, ElementId, Record, Summing};
use crate::event::Event;
use crate::task::ExitRecord;

/// The version of the format.
const FORMAT: u32 = 1;
/// The longest line an import reads.
const MAX_LINE_BYTES: u64 = 4 << 20;
/// Entries an import writes at once.
const BATCH: usize = 1000;

/// Why an export failed.
#[derive(Debug, Error)]
pub enum ExportError {
    /// Writing it out.
    #[error("writing the export failed")]
    Io(#[from] std::io::Error),
    /// Reading the ledger.
    #[error("reading the ledger failed")]
    Ledger(#[from] LedgerError),
}

/// Why an import failed. The ledger is empty then, as it was.
#[derive(Debug, Error)]
pub enum ImportError {
    /// Reading it.
    #[error("reading the import failed")]
    Io(#[from] std::io::Error),
    /// Opening or writing the ledger.
    #[error("writing the ledger failed")]
    Ledger(#[from] LedgerError),
    /// An import never adds to what is there.
    #[error("the ledger at {0} is not empty")]
    NotEmpty(std::path::PathBuf),
    /// A line that no export has.
    #[error("line {line} of the import is not a line of an export")]
    Line {
        /// From 1.
        line: u64,
    },
    /// Its end is missing.
    #[error("the import ends without its last line")]
    Truncated,
    /// It was changed.
    #[error("the import is not what was exported: its lines or checksum differ")]
    Sum,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    ledger: u32,
    schema: u32,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(default)]
    about: Value,
    bytes: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    lines: u64,
    sum: Checksum,
}

struct Summed<W> {
    out: W,
    sum: Summing,
    lines: u64,
}

impl<W: Write> Summed<W> {
    fn line(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.sum.update(&bytes);
        self.lines += 1;
        self.out.write_all(&bytes)
    }
}

impl Ledger {
    /// Writes the whole ledger, as it is at one moment, to `out` and returns the number of lines. It runs on the
    /// writer: reads go on meanwhile, writes wait, so `out` should be a file or as fast as one.
    pub async fn export(&self, out: impl Write + Send + 'static) -> Result<u64, ExportError> {
        self.write(move |txn| export(txn.tree, out)).await
    }

    /// Opens an empty (or new) ledger with what [`Ledger::export`] wrote. Blocking. When it fails, or is
    /// interrupted, the ledger stays empty.
    pub fn import(config: &LedgerConfig, input: impl BufRead) -> Result<Self, ImportError> {
        let lock = durable::lock(&config.path)?;
        let (db, tree) = durable::open(config)?;
        let schema = keys::meta("schema");
        for key in tree.iter().keys() {
            if key.map_err(LedgerError::from)? != schema {
                return Err(ImportError::NotEmpty(config.path.clone()));
            }
        }
        insert(&tree, &mark(), Vec::new())?;
        if let Err(error) = fill(&tree, input) {
            discard_unfinished(&tree)?;
            schema::bring_up(&tree)?;
            return Err(error);
        }
        schema::bring_up(&tree)?;
        tree.remove(mark()).map_err(LedgerError::from)?;
        tree.flush().map_err(LedgerError::from)?;
        Ok(Self::start(config, lock, db, tree)?)
    }
}

/// Empties a ledger whose import was interrupted.
pub(super) fn discard_unfinished(tree: &sled::Tree) -> Result<(), LedgerError> {
    if tree.contains_key(mark())? {
        // The mark goes last, so an interrupted clearing is taken up again.
        for key in tree
            .iter()
            .keys()
            .filter(|key| key.as_deref() != Ok(&mark()))
        {
            tree.remove(key?)?;
        }
        tree.flush()?;
        tree.remove(mark())?;
        tree.flush()?;
    }
    Ok(())
}

/// Stands in the ledger as long as an import is not complete.
fn mark() -> Vec<u8> {
    keys::meta("importing")
}

fn insert(tree: &sled::Tree, key: &[u8], value: Vec<u8>) -> Result<(), LedgerError> {
    tree.insert(key, value)?;
    tree.flush()?;
    Ok(())
}

fn export(tree: &sled::Tree, out: impl Write) -> Result<u64, ExportError> {
    let mut out = Summed {
        out: std::io::BufWriter::new(out),
        sum: Summing::default(),
        lines: 0,
    };
    out.line(&Head {
        ledger: FORMAT,
        schema: schema::CURRENT,
    })?;
    for entry in tree.iter() {
        let (key, entry) = entry.map_err(LedgerError::from)?;
        let bytes = hex::encode(&entry);
        let about = about(tree, &key, entry).unwrap_or(Value::Null);
        let key = hex::encode(&key);
        out.line(&Line { key, about, bytes })?;
    }
    let (lines, sum) = (out.lines, out.sum.clone().finish());
    out.line(&Tail { lines, sum })?;
    out.out.flush()?;
    Ok(out.lines)
}

/// What an entry is; nothing where it cannot be read or says nothing by itself.
fn about(tree: &sled::Tree, key: &[u8], entry: sled::IVec) -> Option<Value> {
    let class = *key.first()?;
    if let Some(index) = Index::of_class(class) {
        let pair = std::str::from_utf8(&key[1..]).ok()?;
        let (first, second) = pair.split_once('\0')?;
        return Some(json!({ index.as_str(): second, "of": first }));
    }
    match class {
        b'e' => {
            let value = pieces::whole(tree, key, entry).ok()?;
            let record: Record = codec::decode(key, &value).ok()?;
            Some(json!({
                "element": record.id,
                "parent": record.parent,
                "owner": record.owner,
                "checksum": record.checksum,
                "size": record.size,
                "ro_keys": record.ro.keys().collect::<Vec<_>>(),
                "rw_keys": record.rw.keys().collect::<Vec<_>>(),
                "revision": record.revision,
                "created": record.created,
                "modified": record.modified,
                "state": record.state,
                "hidden": record.hidden,
            }))
        }
        b'a' => {
            let row: AuditRow = codec::decode(key, &entry).ok()?;
            let id = std::str::from_utf8(key.get(1..key.len().checked_sub(9)?)?).ok()?;
            Some(json!({ "audit": row, "of": id }))
        }
        b'v' => Some(json!({ "event": codec::decode::<Event>(key, &entry).ok()? })),
        b'x' => Some(json!({ "exit": codec::decode::<ExitRecord>(key, &entry).ok()? })),
        b'd' => Some(json!({ "data": std::str::from_utf8(&key[1..]).ok()? })),
        b'i' => Some(json!({ "intent": std::str::from_utf8(&key[1..]).ok()? })),
        b'n' => {
            let pool = std::str::from_utf8(key.get(1..key.len().checked_sub(5)?)?).ok()?;
            let owner: ElementId = codec::decode(key, &entry).ok()?;
            Some(json!({ "number": keys::number_of(key).ok()?, "pool": pool, "owner": owner }))
        }
        b'm' => Some(json!({ "meta": std::str::from_utf8(&key[1..]).ok()? })),
        _ => None,
    }
}

fn fill(tree: &sled::Tree, mut input: impl BufRead) -> Result<(), ImportError> {
    let mut sum = Summing::default();
    let mut batch = sled::Batch::default();
    let mut lines = 0;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut bounded = input.by_ref().take(MAX_LINE_BYTES);
        bounded.read_until(b'\n', &mut bytes)?;
        let wrong = ImportError::Line { line: lines + 1 };
        if bytes.last() != Some(&b'\n') {
            return Err(match bytes.len() as u64 {
                MAX_LINE_BYTES => wrong,
                _ => ImportError::Truncated,
            });
        }
        // serde would take an array for a struct.
        if bytes.first() != Some(&b'{') {
            return Err(wrong);
        }
        if let Ok(tail) = serde_json::from_slice::<Tail>(&bytes) {
            if tail.lines != lines || tail.sum != sum.finish() || !input.fill_buf()?.is_empty() {
                return Err(ImportError::Sum);
            }
            tree.apply_batch(batch).map_err(LedgerError::from)?;
            return Ok(());
        }
        if lines == 0 {
            match serde_json::from_slice::<Head>(&bytes) {
                Ok(head) if head.schema > schema::CURRENT => {
                    return Err(ImportError::Ledger(LedgerError::NewerSchema {
                        found: head.schema,
                        known: schema::CURRENT,
                    }));
                }
                Ok(head) if head.ledger == FORMAT => {}
                _ => return Err(wrong),
            }
        } else {
            let (key, value) = entry(&bytes).ok_or(wrong)?;
            batch.insert(key, value);
        }
        sum.update(&bytes);
        lines += 1;
        if lines.is_multiple_of(BATCH as u64) {
            tree.apply_batch(std::mem::take(&mut batch))
                .map_err(LedgerError::from)?;
        }
    }
}

/// The key and the stored bytes of a line; only keys and sizes that a ledger can have.
fn entry(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let key = hex::decode(&line.key).ok()?;
    let value = hex::decode(&line.bytes).ok()?;
    let known = key.len() > 1 && b"medcroatvxik".contains(&key[0]) && key != mark();
    (known && key.len() <= keys::MAX_BYTES && value.len() <= pieces::PIECE_BYTES)
        .then_some((key, value))
}
