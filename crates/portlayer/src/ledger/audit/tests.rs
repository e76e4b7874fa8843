use super::*;
use crate::Operation;
use crate::ledger::testing::{Temporary, id, operation, write};
use crate::ledger::{Ledger, keys};

async fn act(ledger: &Ledger, name: &'static str, entry: AuditEntry) {
    write(ledger, move |txn| {
        txn.audit(&operation("op"), &id(name), entry)
    })
    .await;
}

#[tokio::test]
async fn rows_chain_and_verify_across_the_trimmed_part() {
    let mut temporary = Temporary::new();
    act(temporary.get(), "a", AuditEntry::done(Verb::Create, 0, 1)).await;
    let first = temporary.get().audit_log(&id("a")).unwrap().remove(0);
    for part in 0..10 {
        write(temporary.get(), move |txn| {
            for n in 0..40 {
                let revision = part * 40 + n + 1;
                let entry = AuditEntry::done(Verb::Update, revision, revision + 1)
                    .keys(vec!["color".into()]);
                txn.audit(&operation("op"), &id("a"), entry)?;
            }
            Ok(())
        })
        .await;
    }
    temporary.reopen();
    let rows = temporary.get().audit_log(&id("a")).unwrap();
    assert_eq!(rows.len() as u64, KEPT_ROWS);
    assert_eq!(rows[0], first);
    assert_eq!(rows.last().unwrap().sequence, 401);
    assert_eq!(rows[1].sequence, 401 - KEPT_ROWS + 2);
    assert_eq!(rows[255].keys, ["color"]);
    let report = temporary.get().verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.chains, report.audit_rows), (1, KEPT_ROWS));
    assert_eq!(report.heads_match, Some(true));
}

#[tokio::test]
async fn every_kind_of_tampering_is_found() {
    type Tamper = fn(&sled::Tree);
    let row = |n| keys::audit(&id("a"), n);
    let tampers: [(&str, Tamper); 6] = [
        ("a changed row", |tree| {
            let key = keys::audit(&id("a"), 3);
            let mut row: AuditRow =
                crate::ledger::codec::decode(&key, &tree.get(&key).unwrap().unwrap()).unwrap();
            row.actor = "somebody else".into();
            tree.insert(&key, crate::ledger::codec::encode(&row).unwrap())
                .unwrap();
        }),
        ("a removed row", |tree| {
            tree.remove(keys::audit(&id("a"), 2)).unwrap();
        }),
        ("the first row removed", |tree| {
            tree.remove(keys::audit(&id("a"), 1)).unwrap();
        }),
        ("the newest row removed", |tree| {
            tree.remove(keys::audit(&id("a"), 5)).unwrap();
        }),
        ("the whole log removed", |tree| {
            for key in tree.scan_prefix(keys::audit_rows(&id("a"))).keys() {
                tree.remove(key.unwrap()).unwrap();
            }
        }),
        ("rows of another element", |tree| {
            for n in 1..=5 {
                let other = tree.get(keys::audit(&id("b"), n)).unwrap().unwrap();
                tree.insert(keys::audit(&id("a"), n), other).unwrap();
            }
        }),
    ];
    for (what, tamper) in tampers {
        let temporary = Temporary::new();
        for n in 1..=5 {
            act(
                temporary.get(),
                "a",
                AuditEntry::done(Verb::Update, n, n + 1),
            )
            .await;
            act(
                temporary.get(),
                "b",
                AuditEntry::done(Verb::Commit, n, n + 1),
            )
            .await;
        }
        assert!(temporary.get().verify().unwrap().is_clean());
        let tree = &temporary.get().shared.tree;
        assert!(tree.contains_key(row(5)).unwrap());
        tamper(tree);
        let report = temporary.get().verify().unwrap();
        assert!(!report.is_clean(), "{what} was not found: {report:?}");
    }
}

#[tokio::test]
async fn refusals_are_recorded_once_and_only_for_what_exists() {
    let temporary = Temporary::new();
    let ledger = temporary.get();
    let refused = || AuditEntry::failed(Verb::Delete, 1, "in-use");
    act(ledger, "a", refused()).await;
    assert!(ledger.audit_log(&id("a")).unwrap().is_empty());
    act(ledger, "a", AuditEntry::done(Verb::Create, 0, 1)).await;
    for _ in 0..1000 {
        act(ledger, "a", refused()).await;
    }
    act(
        ledger,
        "a",
        AuditEntry::failed(Verb::Update, 1, "read-only-key"),
    )
    .await;
    let outcomes: Vec<_> = ledger
        .audit_log(&id("a"))
        .unwrap()
        .into_iter()
        .map(|row| row.outcome)
        .collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Ok,
            Outcome::Failed("in-use".into()),
            Outcome::Failed("read-only-key".into())
        ]
    );
    assert!(ledger.verify().unwrap().is_clean());
}

#[tokio::test]
async fn rows_outlive_a_delete_for_a_bounded_number_of_elements() {
    let temporary = Temporary::new();
    let ledger = temporary.get();
    let deleted = KEPT_TOMBSTONES + 10;
    write(ledger, move |txn| {
        for n in 0..deleted {
            let id = id(&format!("gone-{n}"));
            let operation = Operation {
                id: "op".into(),
                actor: "test".into(),
            };
            txn.audit(&operation, &id, AuditEntry::done(Verb::Create, 0, 1))?;
            txn.audit(&operation, &id, AuditEntry::done(Verb::Delete, 1, 0))?;
            if n == 3 {
                // Lives again, so its rows are no tombstone's any more.
                txn.audit(&operation, &id, AuditEntry::done(Verb::Create, 0, 1))?;
            }
        }
        Ok(())
    })
    .await;
    let rows = |n: u64| ledger.audit_log(&id(&format!("gone-{n}"))).unwrap().len();
    assert_eq!(rows(0), 0);
    assert_eq!(rows(3), 3);
    assert_eq!(rows(9), 0);
    assert_eq!(rows(10), 2);
    assert_eq!(rows(deleted - 1), 2);
    let report = ledger.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}
