use std::sync::{Arc, Mutex};

use super::*;
use crate::event::Change;
use crate::ledger::testing::{Temporary, id, operation, record, write};
use crate::ledger::{AuditEntry, Index, Verb};

/// A file in memory that both sides hold.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn filled() -> Temporary {
    let temporary = Temporary::new();
    for n in 0..30 {
        write(temporary.get(), move |txn| {
            let mut record = record(&format!("{n}"), 1);
            record
                .rw
                .insert("password".into(), b"hunter2-secret".to_vec());
            if n == 3 {
                record.ro.insert("long".into(), vec![b'z'; 60 << 10]);
            }
            txn.put(&record)?;
            txn.put_data(&record.id, b"definition with hunter2-secret".repeat(2000));
            txn.link(Index::Children, &record.id, &id("0"));
            txn.emit(&record.id, 1, Change::Created);
            let entry = AuditEntry::done(Verb::Create, 0, 1).keys(vec!["password".into()]);
            txn.audit(&operation("op"), &record.id, entry)
        })
        .await;
    }
    temporary
}

async fn exported(ledger: &Ledger) -> Vec<u8> {
    let out = Shared::default();
    ledger.export(out.clone()).await.unwrap();
    std::mem::take(&mut out.0.lock().unwrap())
}

fn empty() -> (Temporary, LedgerConfig) {
    let mut temporary = Temporary::new();
    temporary.ledger = None;
    let config = temporary.config.clone();
    (temporary, config)
}

#[tokio::test]
async fn a_round_trip_loses_nothing_not_even_damage_and_shows_no_secret() {
    let source = filled().await;
    let tree = &source.get().shared.tree;
    tree.insert(keys::element(&id("5")), b"damaged").unwrap();
    let lines = exported(source.get()).await;
    let text = String::from_utf8(lines.clone()).unwrap();
    assert!(!text.contains("hunter2"));
    assert!(text.contains(r#""element":"volume://default/7""#));
    assert!(text.contains(r#""rw_keys":["filler","labels.team","password"]"#));

    let (mut target, config) = empty();
    target.ledger = Some(Ledger::import(&config, lines.as_slice()).unwrap());
    assert_eq!(exported(target.get()).await, lines);
    let report = target.get().verify().unwrap();
    assert_eq!(report, source.get().verify().unwrap());
    assert_eq!(report.damaged, ["evolume://default/5"]);
    write(target.get(), |txn| {
        assert_eq!(txn.emit(&id("a"), 1, Change::Deleted), 31);
        Ok(())
    })
    .await;
    target.reopen();
    assert_eq!(target.get().last_sequence(), 31);
}

#[tokio::test]
async fn an_import_only_goes_into_an_empty_ledger() {
    let mut source = filled().await;
    let lines = exported(source.get()).await;
    source.ledger = None;
    let refused = Ledger::import(&source.config, lines.as_slice());
    assert!(matches!(refused, Err(ImportError::NotEmpty(_))));
    source.reopen();
    assert_eq!(exported(source.get()).await, lines);
}

#[tokio::test]
async fn what_is_no_whole_export_is_refused_and_leaves_the_ledger_empty() {
    let lines = exported(filled().await.get()).await;
    let text = String::from_utf8(lines.clone()).unwrap();
    let (all_but_last, _) = text.trim_end().rsplit_once('\n').unwrap();
    let without_a_line: String = text
        .split_inclusive('\n')
        .enumerate()
        .filter(|(n, _)| *n != 8)
        .map(|(_, line)| line)
        .collect();
    let mut flipped = lines.clone();
    let at = text.rfind(r#""bytes":"0"#).unwrap() + 12;
    flipped[at] = if flipped[at] == b'0' { b'1' } else { b'0' };
    type Is = fn(&ImportError) -> bool;
    let cases: [(&str, Vec<u8>, Is); 9] = [
        ("nothing", vec![], |e| matches!(e, ImportError::Truncated)),
        ("no end", format!("{all_but_last}\n").into(), |e| {
            matches!(e, ImportError::Truncated)
        }),
        ("cut in a line", lines[..lines.len() - 30].to_vec(), |e| {
            matches!(e, ImportError::Truncated)
        }),
        ("a line less", without_a_line.into(), |e| {
            matches!(e, ImportError::Sum)
        }),
        ("a changed byte", flipped, |e| matches!(e, ImportError::Sum)),
        ("more after the end", format!("{text}x\n").into(), |e| {
            matches!(e, ImportError::Sum)
        }),
        ("another file", b"[1, 2]\n".to_vec(), |e| {
            matches!(e, ImportError::Line { line: 1 })
        }),
        (
            "a line of nothing",
            b"{\"ledger\":1,\"schema\":1}\n{}\n".to_vec(),
            |e| matches!(e, ImportError::Line { line: 2 }),
        ),
        (
            "a newer one",
            b"{\"ledger\":1,\"schema\":9}\n".to_vec(),
            |e| {
                matches!(
                    e,
                    ImportError::Ledger(LedgerError::NewerSchema { found: 9, .. })
                )
            },
        ),
    ];
    for (what, input, is) in cases {
        let (mut target, config) = empty();
        let error = Ledger::import(&config, input.as_slice()).err().unwrap();
        assert!(is(&error), "{what}: {error:?}");
        target.reopen();
        assert!(
            target
                .get()
                .shared
                .tree
                .iter()
                .all(|entry| entry.unwrap().0 == keys::meta("schema"))
        );
        target.ledger = None;
        target.ledger = Some(Ledger::import(&config, lines.as_slice()).unwrap());
    }
}

#[test]
fn an_interrupted_import_leaves_an_empty_ledger() {
    let mut target = Temporary::new();
    let tree = target.get().shared.tree.clone();
    insert(&tree, &mark(), Vec::new()).unwrap();
    insert(&tree, b"evolume://default/a", b"half".to_vec()).unwrap();
    drop(tree);
    target.reopen();
    assert!(
        target
            .get()
            .list("", None, 1, |_| true)
            .unwrap()
            .damaged
            .is_empty()
    );
    assert!(!target.get().shared.tree.contains_key(mark()).unwrap());
}
