//! The schema's version and the migrations to it.
//!
//! A migration changes stored keys or values from one version to the next, as one sled batch together with the new
//! version number: after a crash it either happened or runs again. Audit rows are never rewritten, or their chains
//! would break.

use super::{LedgerError, codec, keys};

/// The version this program writes.
pub(super) const CURRENT: u32 = 1;

/// One step: adds to the batch what brings a ledger of the version before to `to`.
struct Migration {
    to: u32,
    run: fn(&sled::Tree, &mut sled::Batch) -> Result<(), LedgerError>,
}

/// All steps, in order. Each has a test with a ledger of the version before. There is none yet: 1 is the first.
const MIGRATIONS: &[Migration] = &[];

/// Stamps a new ledger, migrates an older one. Error: `NewerSchema`, and nothing was changed.
pub(super) fn bring_up(tree: &sled::Tree) -> Result<(), LedgerError> {
    migrate(tree, CURRENT, MIGRATIONS)
}

fn migrate(tree: &sled::Tree, current: u32, steps: &[Migration]) -> Result<(), LedgerError> {
    let key = keys::meta("schema");
    let found = match tree.get(&key)? {
        Some(stored) => codec::decode::<u32>(&key, &stored)?,
        None if tree.is_empty() => {
            tree.insert(&key, codec::encode(&current)?)?;
            tree.flush()?;
            return Ok(());
        }
        None => return Err(LedgerError::damaged(&key)),
    };
    if found > current {
        return Err(LedgerError::NewerSchema {
            found,
            known: current,
        });
    }
    for step in steps.iter().filter(|step| step.to > found) {
        let mut batch = sled::Batch::default();
        (step.run)(tree, &mut batch)?;
        batch.insert(key.clone(), codec::encode(&step.to)?);
        tree.apply_batch(batch)?;
        tree.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[Migration] = &[
        Migration {
            to: 2,
            run: |_, batch| {
                batch.insert(b"two", b"2");
                Ok(())
            },
        },
        Migration {
            to: 3,
            run: |tree, batch| {
                assert!(
                    tree.contains_key(b"two")?,
                    "steps see what earlier steps did"
                );
                batch.remove(b"two");
                batch.insert(b"three", b"3");
                Ok(())
            },
        },
    ];

    fn tree(directory: &tempfile::TempDir) -> sled::Db {
        sled::open(directory.path()).unwrap()
    }

    #[test]
    fn a_new_ledger_is_stamped_and_an_old_one_goes_through_every_step_once() {
        let directory = tempfile::tempdir().unwrap();
        let db = tree(&directory);
        migrate(&db, 1, &[]).unwrap();
        migrate(&db, 3, STEPS).unwrap();
        assert_eq!(db.get(b"three").unwrap().unwrap(), b"3");
        assert!(!db.contains_key(b"two").unwrap());
        db.remove(b"three").unwrap();
        migrate(&db, 3, STEPS).unwrap();
        assert!(!db.contains_key(b"three").unwrap(), "a done step ran again");
    }

    #[test]
    fn a_newer_schema_is_refused_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let db = tree(&directory);
        migrate(&db, 3, STEPS).unwrap();
        let before: Vec<_> = db.iter().map(Result::unwrap).collect();
        assert!(matches!(
            bring_up(&db),
            Err(LedgerError::NewerSchema { found: 3, known: 1 })
        ));
        assert_eq!(before, db.iter().map(Result::unwrap).collect::<Vec<_>>());
    }

    #[test]
    fn a_ledger_without_its_version_is_damaged_not_new() {
        let directory = tempfile::tempdir().unwrap();
        let db = tree(&directory);
        db.insert(b"e", b"").unwrap();
        assert!(matches!(bring_up(&db), Err(LedgerError::Damaged { .. })));
    }
}
