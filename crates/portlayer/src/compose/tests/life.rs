//! The life of an executor: start, further tasks, ends, starting again.

use super::support::{IMAGE, Node, X, id};
use crate::compose::{ElementResult, JoinHow, RunState};
use crate::element::State;
use crate::task::ExitReason;

#[tokio::test]
async fn a_task_runs_and_leaves_nothing_but_its_records() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "echo hello exit 7").await;
    let volume = node.volume("volume://v/data").await;
    let edit = node.open().await.root().await;
    let edit = edit
        .part(&volume, JoinHow::volume("/data"))
        .await
        .task(&task)
        .await;
    let plan = node
        .layer
        .plan(edit.handle.as_ref().unwrap())
        .await
        .unwrap();
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert_eq!(steps.len(), 10, "{steps:#?}");
    assert!(
        node.engine
            .journal()
            .iter()
            .all(|call| call.starts_with("list"))
    );

    let result = edit.commit().await.unwrap();
    for element in [X, IMAGE, "volume://v/data", "task://t/a"] {
        assert!(
            matches!(result.elements[&id(element)], ElementResult::Success),
            "{element}"
        );
    }
    assert_eq!(result.runs.len(), 1);
    let exit = node.wait(&task).await;
    assert_eq!(
        (exit.run, exit.reason, exit.code),
        (1, ExitReason::Exited, Some(7))
    );
    node.settled().await;
    assert_eq!(node.state(), State::Stopped);
    assert_eq!(node.body().composition.runs[&task].state, RunState::Ended);
    let story = node.story();
    assert_eq!(
        story,
        [
            "joined image://images/base",
            "bound image://images/base",
            "joined task://t/a",
            "bound task://t/a",
            "joined volume://v/data",
            "bound volume://v/data",
            "bound executor://x/x1",
            "unbound task://t/a",
            "unbound executor://x/x1",
        ]
    );
}
