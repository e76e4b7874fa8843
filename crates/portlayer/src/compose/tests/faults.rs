//! Every step of a commit fails once, without effect and with its answer lost: all is undone, the ledger is as it was, and
//! the same commit then succeeds.

use super::support::{Node, X, id};
use crate::compose::{CommitError, Handle, JoinHow, StepError};
use crate::element::{Body, ElementId};
use crate::error::{DeleteError, ReadError};
use crate::ledger::Index;
use crate::runtime::RuntimeErrorKind;

const START: [(&str, usize); 8] = [
    ("begin", 1),
    ("prepare_root", 1),
    ("check_mounts", 1),
    ("create_container", 1),
    ("create_process", 1),
    ("start_process", 1),
    ("create_process", 2),
    ("start_process", 2),
];
const LIVE: [(&str, usize); 3] = [
    ("attach_mount", 1),
    ("create_process", 1),
    ("start_process", 1),
];

struct Composed {
    node: Node,
    tasks: [ElementId; 3],
    volumes: [ElementId; 2],
}

async fn composed() -> Composed {
    let node = Node::new().await;
    Composed {
        tasks: [
            node.task("task://t/a", "hang").await,
            node.task("task://t/b", "hang").await,
            node.task("task://t/c", "hang").await,
        ],
        volumes: [
            node.volume("volume://v/one").await,
            node.volume("volume://v/two").await,
        ],
        node,
    }
}

impl Composed {
    async fn start(&self) -> Handle {
        let edit = self.node.open().await.root().await;
        let edit = edit.part(&self.volumes[0], JoinHow::volume("/one")).await;
        edit.task(&self.tasks[0])
            .await
            .task(&self.tasks[1])
            .await
            .handle()
    }

    async fn live(&self) -> Handle {
        let edit = self
            .node
            .open()
            .await
            .part(&self.volumes[1], JoinHow::volume("/two"))
            .await;
        edit.task(&self.tasks[2]).await.handle()
    }

    fn references(&self) -> Vec<ElementId> {
        let ids = self.volumes.iter().chain(&self.tasks);
        ids.flat_map(|id| {
            self.node
                .layer
                .shared
                .ledger
                .linked(Index::References, id)
                .unwrap()
        })
        .collect()
    }

    async fn fails(&self, handle: &Handle, expected: &str) {
        let record = self.node.record(&id(X));
        let events = self.node.events().len();
        let (references, left) = (self.references(), self.node.leftovers().await);
        let error = self.node.layer.commit(handle.clone()).await.unwrap_err();
        let CommitError::Step {
            source,
            undo_failures,
            ..
        } = &error
        else {
            panic!("{expected}: {error}");
        };
        if expected != "attach" {
            assert!(
                matches!(source, StepError::Runtime(cause) if cause.verb == expected),
                "{expected}: {error:?}"
            );
        }
        assert!(undo_failures.is_empty(), "{expected}: {undo_failures:?}");
        assert_eq!(self.node.record(&id(X)), record, "{expected}");
        assert_eq!(self.node.events().len(), events, "{expected}");
        assert_eq!(self.references(), references, "{expected}");
        assert_eq!(self.node.leftovers().await, left, "{expected}");
        let intents = self
            .node
            .layer
            .shared
            .ledger
            .intents::<crate::compose::Intent>()
            .unwrap();
        assert!(intents.is_empty(), "{expected}");
    }
}

#[tokio::test]
async fn a_start_is_undone_from_every_step() {
    for with_effect in [false, true] {
        let composed = composed().await;
        let handle = composed.start().await;
        for (verb, nth) in START {
            match with_effect {
                true => {
                    composed
                        .node
                        .engine
                        .fail_after_effect(verb, nth, RuntimeErrorKind::Timeout)
                }
                false => composed
                    .node
                    .engine
                    .fail(verb, nth, RuntimeErrorKind::NoSpace),
            }
            composed.fails(&handle, verb).await;
        }
        *composed.node.volumes.fail.lock().unwrap() = true;
        composed.fails(&handle, "attach").await;
        let result = composed.node.layer.commit(handle).await.unwrap();
        assert_eq!(result.runs.len(), 2);
        assert_eq!(composed.node.body().composition.generation, 1);
    }
}

#[tokio::test]
async fn a_change_of_a_running_container_is_undone_from_every_step() {
    for with_effect in [false, true] {
        let composed = composed().await;
        composed
            .node
            .layer
            .commit(composed.start().await)
            .await
            .unwrap();
        let handle = composed.live().await;
        for (verb, nth) in LIVE {
            match with_effect {
                true => {
                    composed
                        .node
                        .engine
                        .fail_after_effect(verb, nth, RuntimeErrorKind::Timeout)
                }
                false => composed
                    .node
                    .engine
                    .fail(verb, nth, RuntimeErrorKind::Internal),
            }
            composed.fails(&handle, verb).await;
        }
        *composed.node.volumes.fail.lock().unwrap() = true;
        composed.fails(&handle, "attach").await;
        let result = composed.node.layer.commit(handle).await.unwrap();
        assert_eq!(result.runs.len(), 1);
        assert_eq!(
            composed
                .node
                .engine
                .mounts(&crate::runtime::ContainerId::new(&id(X), 1))
                .len(),
            2
        );
    }
}

#[tokio::test]
async fn a_failed_undo_is_reported_and_its_name_is_not_used_again() {
    let composed = composed().await;
    let handle = composed.start().await;
    composed
        .node
        .engine
        .fail("start_process", 1, RuntimeErrorKind::Internal);
    composed
        .node
        .engine
        .fail("remove_root", 1, RuntimeErrorKind::Busy);
    let error = composed
        .node
        .layer
        .commit(handle.clone())
        .await
        .unwrap_err();
    let CommitError::Step {
        step,
        undo_failures,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((step.as_str(), undo_failures.len()), ("start process", 1));
    assert_eq!(undo_failures[0].0, "remove root");
    // Purged as a whole in the end.
    assert_eq!(composed.node.leftovers().await, Vec::<String>::new());
    composed.node.layer.commit(handle).await.unwrap();
    assert_eq!(composed.node.body().composition.generation, 2);
}

#[tokio::test]
async fn a_program_that_is_not_there_names_the_task() {
    let node = Node::new().await;
    let task = node.task("task://t/gone", "nosuchprogram").await;
    let error = node
        .open()
        .await
        .root()
        .await
        .task(&task)
        .await
        .commit()
        .await
        .unwrap_err();
    let CommitError::Step {
        element,
        source: StepError::Runtime(source),
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (element, &source.kind),
        (&task, &RuntimeErrorKind::ExecutableNotFound)
    );
    assert_eq!(node.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_executor_deleted_under_its_commit_leaves_nothing() {
    let composed = composed().await;
    let handle = composed.start().await;
    let hold = composed.node.engine.hold("start_process");
    let layer = composed.node.layer.clone();
    let commit = tokio::spawn(async move { layer.commit(handle).await });
    while !composed
        .node
        .engine
        .journal()
        .iter()
        .any(|call| call.starts_with("start_process"))
    {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let gone: Result<(), crate::ledger::LedgerError> = composed
        .node
        .layer
        .shared
        .ledger
        .write(|txn| {
            txn.remove(&id(X));
            Ok(())
        })
        .await;
    gone.unwrap();
    drop(hold);
    assert!(commit.await.unwrap().is_err());
    assert_eq!(composed.node.leftovers().await, Vec::<String>::new());
    assert!(composed.references().is_empty());
    composed.node.put(X, Body::Executor(Box::default())).await;
}

#[tokio::test]
async fn a_delete_whose_clean_up_fails_says_so_and_leaves_no_container() {
    for verb in ["purge", "remove_logs"] {
        let node = Node::new().await;
        let task = node.task("task://t/a", "echo hello").await;
        node.run(&[&task]).await;
        node.wait(&task).await;
        node.settled().await;
        node.engine.fail(verb, 1, RuntimeErrorKind::Unavailable);
        let error = node.layer.delete(&id(X)).await.unwrap_err();
        assert!(
            matches!(&error, DeleteError::Runtime { id: of, source } if *of == id(X) && source.verb == verb),
            "{error:?}"
        );
        let read = node.layer.read(&id(X)).await;
        assert!(matches!(read, Err(ReadError::NotFound { .. })));
        let node = node.restart().await;
        assert!(node.leftovers().await.is_empty());
    }
}
