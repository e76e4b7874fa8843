//! The ledger as a whole: writing, reading, damage, locking, durability.

use super::durable::syncs;
use super::testing::{Temporary, id, record, write};
use super::*;
use crate::element::{ElementId, Record};
use crate::event::Change;
use crate::task::{ExitReason, ExitRecord};
use crate::time::Timestamp;

fn volume(name: &str) -> ElementId {
    id(name)
}

fn exit(executor: &ElementId, task: &ElementId, run: u32) -> ExitRecord {
    ExitRecord {
        executor: executor.clone(),
        task: task.clone(),
        run,
        reason: ExitReason::Exited,
        code: Some(7),
        signal: None,
        cpu_ns: None,
        memory_peak_bytes: None,
        started: Timestamp::now(),
        exited: Timestamp::now(),
        reconciled: false,
        message: None,
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let mut temporary = Temporary::new();
    let (executor, task) = (volume("executor"), volume("task"));
    let stored = record("a", 1);
    let (copy, exits) = (
        stored.clone(),
        [exit(&executor, &task, 1), exit(&executor, &task, 2)],
    );
    let written = exits.clone();
    write(temporary.get(), move |txn| {
        txn.put(&copy)?;
        txn.put_data(&copy.id, b"definition".to_vec());
        txn.link(Index::Children, &copy.id, &id("child"));
        txn.link(Index::Children, &copy.id, &id("other"));
        txn.unlink(Index::Children, &copy.id, &id("other"));
        for exit in &written {
            txn.put_exit(exit)?;
        }
        txn.put_intent(&id("executor"), &"step 3")?;
        txn.emit(&copy.id, 1, Change::Created);
        assert_eq!(txn.get(&copy.id)?.as_ref(), Some(&copy), "its own writes");
        assert_eq!(txn.last_sequence(), 1);
        Ok(())
    })
    .await;
    temporary.reopen();
    let ledger = temporary.get();
    assert_eq!(ledger.get(&stored.id).unwrap().as_ref(), Some(&stored));
    assert_eq!(ledger.data(&stored.id).unwrap().unwrap(), b"definition");
    assert_eq!(
        ledger.linked(Index::Children, &stored.id).unwrap(),
        [id("child")]
    );
    assert_eq!(ledger.exits(&executor, None).unwrap(), exits);
    assert_eq!(ledger.exits(&executor, Some(&task)).unwrap(), exits);
    assert!(
        ledger
            .exits(&executor, Some(&stored.id))
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        ledger.exit(&executor, &task, 2).unwrap().as_ref(),
        Some(&exits[1])
    );
    let intents = ledger.intents::<String>().unwrap();
    assert_eq!(intents[0].0, id("executor"));
    assert_eq!(intents[0].1.as_ref().unwrap(), "step 3");
    assert_eq!(ledger.last_sequence(), 1);
    assert_eq!(ledger.events(1, 10).unwrap()[0].change, Change::Created);
}

#[tokio::test]
async fn a_failed_or_panicking_transaction_leaves_nothing_and_the_ledger_goes_on() {
    let temporary = Temporary::new();
    let ledger = temporary.get();
    let failed: Result<(), LedgerError> = ledger
        .write(|txn| {
            txn.put(&record("a", 1))?;
            txn.emit(&id("a"), 1, Change::Created);
            Err(LedgerError::Closed)
        })
        .await;
    assert!(matches!(failed, Err(LedgerError::Closed)));
    let panicked: Result<(), LedgerError> = ledger
        .write(|txn| {
            txn.put(&record("a", 1))?;
            panic!("on purpose");
        })
        .await;
    assert!(matches!(panicked, Err(LedgerError::Panicked)));
    assert!(ledger.get(&id("a")).unwrap().is_none());
    assert_eq!(ledger.last_sequence(), 0);
    write(ledger, |txn| txn.put(&record("b", 1))).await;
    assert!(ledger.get(&id("b")).unwrap().is_some());
}

#[tokio::test]
async fn pages_follow_each_other_and_hold_what_passes() {
    let temporary = Temporary::new();
    write(temporary.get(), |txn| {
        for n in 0..500 {
            txn.put(&record(&format!("n/{n:04}"), n))?;
        }
        txn.put(&record("na", 1))?;
        txn.put(&record("m", 1))
    })
    .await;
    let ledger = temporary.get();
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let even = |record: &Record| record.revision.is_multiple_of(2);
        let page = ledger
            .list("volume://default/n/", after.as_deref(), 30, even)
            .unwrap();
        assert!(page.records.len() <= 30);
        seen.extend(page.records.iter().map(|record| record.revision));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..500).step_by(2).collect::<Vec<_>>());
    let all = ledger.list("", None, usize::MAX, |_| true).unwrap();
    assert_eq!((all.records.len(), all.next), (502, None));
    let none = ledger.list("image://", None, 10, |_| true).unwrap();
    assert_eq!(none, Page::default());
}

#[tokio::test]
async fn long_values_come_back_whole_and_leave_nothing_behind() {
    let mut temporary = Temporary::new();
    let data = |bytes: usize| -> Vec<u8> { (0..=250).cycle().take(bytes).collect() };
    let sizes = [
        1 << 20,
        pieces::PIECE_BYTES * 3,
        10,
        400_000,
        pieces::PIECE_BYTES,
    ];
    for size in sizes {
        write(temporary.get(), move |txn| {
            txn.put(&record("long", 1))?;
            txn.put_data(&id("long"), data(size));
            assert_eq!(txn.data(&id("long"))?.unwrap(), data(size));
            Ok(())
        })
        .await;
        temporary.reopen();
        assert_eq!(
            temporary.get().data(&id("long")).unwrap().unwrap(),
            data(size)
        );
        assert!(temporary.get().verify().unwrap().is_clean());
    }
    let mut big = record("big", 1);
    for n in 0..8 {
        big.rw.insert(format!("key-{n}"), data(64 << 10));
    }
    let copy = big.clone();
    write(temporary.get(), move |txn| txn.put(&copy)).await;
    assert_eq!(temporary.get().get(&big.id).unwrap().unwrap(), big);
    assert_eq!(
        temporary
            .get()
            .list("", None, 10, |_| true)
            .unwrap()
            .records[0],
        big
    );
    write(temporary.get(), |txn| {
        for name in ["big", "long"] {
            txn.remove(&id(name));
            txn.remove_data(&id(name));
        }
        Ok(())
    })
    .await;
    let left: Vec<_> = temporary
        .get()
        .shared
        .tree
        .iter()
        .keys()
        .map(Result::unwrap)
        .collect();
    assert!(left.iter().all(|key| key[0] == b'm'), "{left:?}");
    let blobs = std::fs::read_dir(temporary.config.path.join("blobs")).unwrap();
    assert_eq!(blobs.count(), 0, "sled never syncs these files");
}

#[tokio::test]
async fn ten_thousand_bit_flips_damage_one_element_each_and_panic_never() {
    let temporary = Temporary::new();
    let count = 50;
    write(temporary.get(), move |txn| {
        for n in 0..count {
            let mut record = record(&format!("{n:02}"), n + 1);
            if n == 0 {
                record.ro.insert("long".into(), vec![b'y'; 60 << 10]);
            }
            txn.put(&record)?;
            txn.put_data(&record.id, vec![b'd'; 64]);
            txn.emit(&record.id, 1, Change::Created);
            let entry = AuditEntry::done(Verb::Create, 0, 1);
            txn.audit(&testing::operation("op"), &record.id, entry)?;
        }
        Ok(())
    })
    .await;
    let ledger = temporary.get();
    let tree = ledger.shared.tree.clone();
    let entries: Vec<_> = tree
        .iter()
        .map(Result::unwrap)
        .filter(|(key, _)| key[0] != b'm')
        .collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    for round in 0..10_000 {
        let (key, good) = &entries[next(entries.len())];
        let bit = next(good.len() * 8);
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        tree.insert(key, bad).unwrap();
        match key[0] {
            b'e' | b'k' => {
                let page = ledger.list("", None, 100, |_| true).unwrap();
                assert_eq!(page.records.len() as u64, count - 1);
                let damaged: ElementId = page.damaged[0].parse().unwrap();
                assert!(matches!(
                    ledger.get(&damaged),
                    Err(LedgerError::Damaged { .. })
                ));
                if round % 100 == 0 {
                    let in_txn = ledger.write(move |txn| txn.get(&damaged)).await;
                    assert!(matches!(in_txn, Err(LedgerError::Damaged { .. })));
                }
            }
            b'd' => {
                let of = keys::id_after(key, 1).unwrap();
                assert!(matches!(ledger.data(&of), Err(LedgerError::Damaged { .. })));
            }
            b'v' => {
                let sequence = keys::number(key).unwrap();
                let event = ledger.events(sequence, 1).unwrap().remove(0);
                assert_eq!(
                    event.change,
                    Change::Gap {
                        from: sequence,
                        to: sequence
                    }
                );
            }
            _ => {
                let of = key[1..key.len() - 9].to_vec();
                let of: ElementId = String::from_utf8(of).unwrap().parse().unwrap();
                assert!(matches!(
                    ledger.audit_log(&of),
                    Err(LedgerError::Damaged { .. })
                ));
            }
        }
        if round % 500 == 0 {
            assert!(!ledger.verify().unwrap().is_clean());
        }
        tree.insert(key, good).unwrap();
    }
    assert!(ledger.verify().unwrap().is_clean());
}

#[test]
fn a_second_open_is_refused_at_once_and_works_after_the_first_is_closed() {
    let mut temporary = Temporary::new();
    let second = Ledger::open(&temporary.config);
    assert!(matches!(second, Err(LedgerError::Locked { .. })));
    temporary.reopen();
    let other_process = std::process::Command::new("flock")
        .args(["--nonblock", "--conflict-exit-code", "9"])
        .arg(temporary.config.path.join("lock"))
        .arg("true")
        .status()
        .unwrap();
    assert_eq!(other_process.code(), Some(9));
}

#[test]
fn files_that_do_not_open_are_a_typed_error_and_stay_as_they_are() {
    let mut temporary = Temporary::new();
    temporary.ledger = None;
    let snapshot = std::fs::read_dir(&temporary.config.path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("snap.")
        });
    let broken = snapshot.unwrap_or_else(|| temporary.config.path.join("snap.0000000000000001"));
    std::fs::write(&broken, b"no snapshot at all").unwrap();
    let refused = Ledger::open(&temporary.config);
    assert!(matches!(refused, Err(LedgerError::Unopenable { .. })));
    assert_eq!(std::fs::read(&broken).unwrap(), b"no snapshot at all");
}

#[tokio::test]
async fn every_acknowledged_write_was_synced() {
    let temporary = Temporary::new();
    for n in 0..20 {
        let before = syncs();
        write(temporary.get(), move |txn| txn.put(&record("a", n))).await;
        assert!(syncs() > before);
    }
}

#[tokio::test]
async fn many_writers_lose_no_update() {
    let temporary = Temporary::new();
    write(temporary.get(), |txn| txn.put(&record("counter", 0))).await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let ledger = temporary.get().clone();
        writers.spawn(async move {
            for _ in 0..20 {
                write(&ledger, |txn| {
                    let mut record = txn.get(&id("counter"))?.unwrap();
                    record.revision += 1;
                    txn.emit(&record.id, record.revision, Change::Created);
                    txn.put(&record)
                })
                .await;
            }
        });
    }
    writers.join_all().await;
    let ledger = temporary.get();
    assert_eq!(ledger.get(&id("counter")).unwrap().unwrap().revision, 1280);
    let revisions: Vec<_> = ledger
        .events(1, 2000)
        .unwrap()
        .iter()
        .map(|e| e.revision)
        .collect();
    assert_eq!(revisions, (1..=1280).collect::<Vec<_>>());
}

#[test]
fn opening_again_in_a_process_that_flushed_as_often_before_works() {
    // Each process begins to count at the same number; the proof must not depend on it.
    let program = std::env::current_exe().unwrap();
    let directory = tempfile::tempdir().unwrap();
    if let Some(path) = std::env::var_os("LEDGER_OPENED_AGAIN") {
        drop(Ledger::open(&LedgerConfig::new(path)).unwrap());
        return;
    }
    for _ in 0..4 {
        let output = std::process::Command::new(&program)
            .args([
                "--exact",
                "ledger::tests::opening_again_in_a_process_that_flushed_as_often_before_works",
            ])
            .env("LEDGER_OPENED_AGAIN", directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
