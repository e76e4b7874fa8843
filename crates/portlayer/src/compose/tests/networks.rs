//! Networks in a composition: addresses, ports, rules, live changes, crashes.

use std::net::Ipv4Addr;

use super::support::{Edit, Node, X, id};
use crate::compose::{BindHow, CommitError, ComposeError, Intent, JoinHow};
use crate::element::{ElementId, State};
use crate::network::{EgressRule, NetworkLease, NetworkUse, PortMapping, Protocol, Transport};
use crate::runtime::{BridgePlan, ContainerId, RuntimeErrorKind};
use crate::task::ExecutorSpec;

const LAN: &str = "network://node/lan";

fn opens(destination: &str) -> NetworkUse {
    let rule = EgressRule {
        protocol: Protocol::Tcp,
        destinations: vec![destination.to_owned()],
        ports: vec!["80".to_owned()],
        ..EgressRule::default()
    };
    NetworkUse {
        egress: Some(vec![rule]),
        ..NetworkUse::default()
    }
}

fn publishes(port: u16, host_port: Option<u16>) -> NetworkUse {
    let mapping = PortMapping {
        port,
        protocol: Transport::Tcp,
        host_port,
        host_address: None,
    };
    NetworkUse {
        ports: vec![mapping],
        ..NetworkUse::default()
    }
}

async fn on_lan(edit: Edit<'_>, wanted: NetworkUse) -> Edit<'_> {
    edit.part(&id(LAN), JoinHow::Network(wanted)).await
}

fn lease(node: &Node, executor: &ElementId) -> Option<NetworkLease> {
    match node.record(executor).body {
        crate::element::Body::Executor(body) => body.composition.lease,
        other => panic!("{other:?}"),
    }
}

fn connected(node: &Node) -> Option<BridgePlan> {
    let generation = node.body().composition.generation;
    node.engine.bridge(&ContainerId::new(&id(X), generation))
}

/// Owners of every address of the network.
async fn owners(node: &Node) -> Vec<(u32, ElementId)> {
    let taken: Result<Vec<_>, crate::ledger::LedgerError> = node
        .layer
        .shared
        .ledger
        .write(|txn| {
            let of = |number| {
                Ok(txn
                    .owner_of_number(LAN, number)?
                    .map(|owner| (number, owner)))
            };
            (0..8).filter_map(|number| of(number).transpose()).collect()
        })
        .await;
    taken.unwrap()
}

async fn another(node: &Node, name: &str) -> ElementId {
    let text = format!("executor://x/{name}");
    node.executor_with(&text, ExecutorSpec::default()).await
}

#[tokio::test]
async fn an_executor_has_its_rules_before_its_task_starts_and_keeps_its_address() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let edit = on_lan(node.open().await.root().await, opens("192.0.2.7")).await;
    assert_eq!(lease(&node, &id(X)), None, "nothing is taken before commit");
    edit.task(&task).await.commit().await.unwrap();
    let journal = node.engine.journal();
    let at = |verb: &str| {
        journal
            .iter()
            .position(|call| call.starts_with(verb))
            .unwrap()
    };
    assert!(at("create_process") < at("connect") && at("connect") < at("start_process"));
    let plan = connected(&node).unwrap();
    assert_eq!(plan.lease.v4, Some(Ipv4Addr::new(10, 9, 0, 2)));
    assert_eq!(plan.lease.v6, Some("fd09::2".parse().unwrap()));
    assert_eq!(plan.egress.as_ref().map(Vec::len), Some(1));
    assert_eq!(plan.hostname, "x1");
    assert_eq!(owners(&node).await, [(2, id(X))]);

    node.open()
        .await
        .unbind(Some(&id(X)))
        .await
        .commit()
        .await
        .unwrap();
    node.settled().await;
    assert_eq!(
        lease(&node, &id(X)),
        Some(plan.lease.clone()),
        "the network is bound still"
    );
    node.open()
        .await
        .bind(None, BindHow::Plain)
        .await
        .commit()
        .await
        .unwrap();
    assert_eq!(connected(&node).unwrap().lease, plan.lease);

    node.open().await.unbind(None).await.commit().await.unwrap();
    assert_eq!(
        (lease(&node, &id(X)), owners(&node).await),
        (None, Vec::new())
    );
    node.settled().await;
}

#[tokio::test]
async fn no_two_executors_have_one_address_and_a_deleted_one_gives_its_back() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let mut executors = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let executor = another(&node, name).await;
        let edit = on_lan(
            node.open_of(&executor).await.root().await,
            NetworkUse::default(),
        )
        .await;
        edit.task(&task).await.commit().await.unwrap();
        executors.push(executor);
    }
    let numbers: Vec<_> = owners(&node)
        .await
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    assert_eq!(numbers, [2, 3, 4, 5, 6]);
    let edit = on_lan(node.open().await.root().await, NetworkUse::default()).await;
    let handle = edit.task(&task).await.handle();
    let calls = node.engine.journal().len();
    let refused = node.layer.commit(handle.clone()).await.unwrap_err();
    assert!(
        matches!(&refused, CommitError::UnresolvedRequirement { element, .. } if *element == id(LAN)),
        "{refused:?}"
    );
    let calls = node.engine.journal().split_off(calls);
    let verbs = calls.iter().filter_map(|call| call.split(' ').next());
    // The empty lease is opened beside the claim.
    assert_eq!(verbs.collect::<Vec<_>>(), ["begin", "end"]);

    let third = &executors[2];
    node.open_of(third)
        .await
        .unbind(Some(third))
        .await
        .commit()
        .await
        .unwrap();
    assert_eq!(owners(&node).await.len(), 5);
    node.layer.delete(third).await.unwrap();
    assert_eq!(owners(&node).await.len(), 4);
    node.layer.commit(handle).await.unwrap();
    assert_eq!(lease(&node, &id(X)).unwrap().number, 4);
}

#[tokio::test]
async fn ports_of_the_host_have_one_owner() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let other = another(&node, "other").await;
    let edit = on_lan(
        node.open_of(&other).await.root().await,
        publishes(80, Some(8080)),
    )
    .await;
    edit.task(&task).await.commit().await.unwrap();
    let edit = on_lan(node.open().await.root().await, publishes(81, Some(8080))).await;
    let refused = edit.task(&task).await.commit().await.unwrap_err();
    match refused {
        CommitError::Invalid {
            element,
            field,
            rule,
            ..
        } => assert_eq!(
            (element, field.as_str(), rule.as_str()),
            (
                id(LAN),
                "ports[0].host_port",
                "published by executor://x/other"
            )
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        owners(&node).await.len(),
        1,
        "the address it got was given back"
    );
    let edit = on_lan(node.open().await.root().await, publishes(81, None)).await;
    edit.task(&task).await.commit().await.unwrap();
    assert_eq!(lease(&node, &id(X)).unwrap().ports[0].host_port, 40_000);
}

#[tokio::test]
async fn a_bad_rule_is_refused_at_join_with_its_field() {
    let node = Node::new().await;
    let field = |edit: Edit<'_>| match edit.handle {
        Err(ComposeError::InvalidField { id: of, field, .. }) => (of, field),
        other => panic!("{other:?}"),
    };
    let edit = on_lan(node.open().await, opens("10.0.0.0/33")).await;
    assert_eq!(
        field(edit),
        (id(LAN), "egress[0].destinations[0]".to_owned())
    );
    let edit = on_lan(node.open().await, publishes(0, None)).await;
    assert_eq!(field(edit), (id(LAN), "ports[0].port".to_owned()));
    // Only bridges can hold to rules.
    let task = node.task("task://t/a", "hang").await;
    let none = id("network://node/none");
    let edit = node
        .open()
        .await
        .root()
        .await
        .part(&none, JoinHow::Network(opens("192.0.2.7")))
        .await;
    let refused = edit.task(&task).await.commit().await.unwrap_err();
    assert!(
        matches!(&refused, CommitError::Invalid { field, .. } if field == "egress"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn rules_that_cannot_be_loaded_fail_the_commit() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    node.engine.fail("connect", 1, RuntimeErrorKind::Firewall);
    let edit = on_lan(node.open().await.root().await, opens("192.0.2.7")).await;
    let refused = edit.task(&task).await.commit().await.unwrap_err();
    assert!(
        matches!(&refused, CommitError::Step { element, .. } if *element == id(LAN)),
        "{refused:?}"
    );
    assert!(
        !node
            .engine
            .journal()
            .iter()
            .any(|call| call.starts_with("start_process"))
    );
    assert_eq!(
        (lease(&node, &id(X)), owners(&node).await),
        (None, Vec::new())
    );
    node.settled().await;
}

#[tokio::test]
async fn a_network_is_joined_changed_and_left_while_the_task_runs() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    node.run(&[&task]).await;
    on_lan(node.open().await, opens("192.0.2.7"))
        .await
        .commit()
        .await
        .unwrap();
    let first = connected(&node).unwrap();

    let again = async |wanted: NetworkUse| {
        let edit = node
            .open()
            .await
            .unbind(Some(&id(LAN)))
            .await
            .leave(&id(LAN))
            .await;
        on_lan(edit, wanted).await.commit().await
    };
    again(opens("192.0.2.8")).await.unwrap();
    let second = connected(&node).unwrap();
    assert_eq!(second.lease, first.lease);
    assert_ne!(second.egress, first.egress);

    node.engine
        .fail_after_effect("connect", 1, RuntimeErrorKind::Timeout);
    again(opens("192.0.2.9")).await.unwrap_err();
    assert_eq!(connected(&node).unwrap(), second, "it is as before");

    let host = id("network://node/host");
    let edit = node
        .open()
        .await
        .unbind(Some(&id(LAN)))
        .await
        .leave(&id(LAN))
        .await;
    let refused = edit
        .part(&host, JoinHow::network())
        .await
        .commit()
        .await
        .unwrap_err();
    assert!(
        matches!(refused, CommitError::NeedsRestart { .. }),
        "{refused:?}"
    );

    let edit = node.open().await.unbind(Some(&id(LAN))).await;
    edit.leave(&id(LAN)).await.commit().await.unwrap();
    assert_eq!((connected(&node), owners(&node).await), (None, Vec::new()));
    assert_eq!(node.state(), State::Running);
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
}

#[tokio::test]
async fn connections_are_restored_at_the_next_open() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let edit = on_lan(node.open().await.root().await, opens("192.0.2.7")).await;
    edit.task(&task).await.commit().await.unwrap();
    let before = connected(&node).unwrap();
    let node = node.restart().await;
    assert_eq!(connected(&node), Some(before));
    assert!(
        node.engine
            .journal()
            .contains(&"restore_networks 1".to_owned())
    );
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
}

#[tokio::test]
async fn what_a_damaged_executor_had_is_free_when_it_is_deleted() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "exit 0").await;
    let edit = on_lan(node.open().await.root().await, publishes(80, None)).await;
    edit.task(&task).await.commit().await.unwrap();
    node.wait(&task).await;
    node.settled().await;
    assert_eq!(owners(&node).await.len(), 1);
    node.layer.shared.ledger.damage(&id(X));
    node.layer.delete_damaged(&id(X)).await.unwrap();
    assert_eq!(owners(&node).await, Vec::new());
    let verified = node.layer.shared.ledger.verify().unwrap();
    assert!(verified.is_clean(), "{verified:?}");
}

#[tokio::test]
async fn what_an_unfinished_commit_took_is_given_back() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let before = node.record(&id(X));
    let hold = node.engine.hold("connect");
    let edit = on_lan(node.open().await.root().await, publishes(80, None)).await;
    let handle = edit.task(&task).await.handle();
    let layer = node.layer.clone();
    let commit = tokio::spawn(async move { layer.commit(handle).await });
    while !node
        .engine
        .journal()
        .iter()
        .any(|call| call.starts_with("connect"))
    {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(owners(&node).await.len(), 1);
    let (_, intent) = node
        .layer
        .shared
        .ledger
        .intents::<Intent>()
        .unwrap()
        .remove(0);
    drop(hold);
    commit.await.unwrap().unwrap();
    // As the ledger was at that moment.
    let (intent, record) = (intent.unwrap(), before.clone());
    let written: Result<(), crate::ledger::LedgerError> = node
        .layer
        .shared
        .ledger
        .write(move |txn| {
            txn.put(&record)?;
            txn.put_intent(&id(X), &intent)
        })
        .await;
    written.unwrap();
    let node = node.restart().await;
    assert_eq!(node.record(&id(X)).body, before.body);
    assert_eq!(owners(&node).await, Vec::new());
    let ports: Result<_, crate::ledger::LedgerError> = node
        .layer
        .shared
        .ledger
        .write(|txn| txn.owner_of_number("host-port/tcp", 40_000))
        .await;
    assert_eq!(ports.unwrap(), None);
}
