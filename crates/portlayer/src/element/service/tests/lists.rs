//! Lists: filters, pages, hidden elements.

use super::*;
use crate::element::{ListQuery, Projection};
use crate::error::ReadError;

async fn ids(node: &Node, query: ListQuery) -> Vec<String> {
    let page = node.layer.list(query).await.unwrap();
    assert_eq!(page.next, None);
    page.items.iter().map(|item| item.id.to_string()).collect()
}

async fn by(node: &Node, filter: &str) -> Vec<String> {
    ids(node, ListQuery::filter(filter)).await
}

async fn filled() -> Node {
    let node = Node::new().await;
    node.layer
        .create(image("image://images/base").ro("tag", "base"))
        .await
        .unwrap();
    node.layer
        .create(
            image("image://images/app")
                .parent(id("image://images/base"))
                .rw("tag", "app"),
        )
        .await
        .unwrap();
    node.layer
        .create(bare_image("image://images/tagged").parent(id("image://images/app")))
        .await
        .unwrap();
    node.layer
        .create(volume("volume://vols/data").rw("team", "a b"))
        .await
        .unwrap();
    node.layer
        .create(volume("volume://vols/free").rw("team", "other"))
        .await
        .unwrap();
    let mut hidden = task("task://default/hidden");
    hidden.hidden = true;
    node.layer.create(hidden).await.unwrap();
    node.layer
        .create(task("task://default/owned").owner(id("volume://vols/data")))
        .await
        .unwrap();
    let x = node
        .layer
        .create(executor("executor://default/x1"))
        .await
        .unwrap()
        .id;
    node.layer
        .create(executor("executor://default/x2"))
        .await
        .unwrap();
    node.compose(
        &x,
        State::Stopped,
        &[&id("volume://vols/data"), &id("image://images/app")],
    )
    .await;
    node
}

#[tokio::test]
async fn filters_select_exactly_what_they_say() {
    let node = filled().await;
    let cases: &[(&str, &[&str])] = &[
        (
            "kind==image",
            &[
                "image://images/app",
                "image://images/base",
                "image://images/tagged",
            ],
        ),
        ("kind==nothing", &[]),
        ("kind==image,labels.\"tag\"==base", &["image://images/base"]),
        ("kind==image,labels.tag~=^a", &["image://images/app"]),
        ("ro.tag", &["image://images/base"]),
        ("rw.tag", &["image://images/app"]),
        ("labels.team==\"a b\"", &["volume://vols/data"]),
        ("kind==volume,labels.team!=other", &["volume://vols/data"]),
        ("id==volume://vols/free", &["volume://vols/free"]),
        ("id==not-an-id", &[]),
        ("id~=^volume://vols/f", &["volume://vols/free"]),
        (
            "location==vols",
            &["volume://vols/data", "volume://vols/free"],
        ),
        ("name==base", &["image://images/base"]),
        ("parent==image://images/base", &["image://images/app"]),
        (
            "kind==image,parent",
            &["image://images/app", "image://images/tagged"],
        ),
        (
            "ancestor==image://images/base",
            &["image://images/app", "image://images/tagged"],
        ),
        (
            "uses==executor://default/x1",
            &["image://images/app", "volume://vols/data"],
        ),
        (
            "usedby==executor://default/x1,kind==volume",
            &["volume://vols/data"],
        ),
        ("uses==volume://vols/data", &["executor://default/x1"]),
        ("uses==executor://default/x2", &[]),
        ("owner==volume://vols/data", &["task://default/owned"]),
        ("state==stopped", &["executor://default/x1"]),
        (
            "hidden==true",
            &["image://builtin/scratch", "task://default/hidden"],
        ),
        (
            "kind==executor,revision==1",
            &["executor://default/x1", "executor://default/x2"],
        ),
        (
            "kind==image,size!=0,checksum~=^sha256",
            &[
                "image://images/app",
                "image://images/base",
                "image://images/tagged",
            ],
        ),
        ("kind==task,created~=^20", &["task://default/owned"]),
    ];
    for (filter, wanted) in cases {
        assert_eq!(by(&node, filter).await, *wanted, "{filter}");
    }
    let both = ListQuery {
        filters: vec![
            "name==base".into(),
            "kind==volume".into(),
            "id==volume://vols/data".into(),
        ],
        ..ListQuery::default()
    };
    assert_eq!(
        ids(&node, both).await,
        [
            "image://images/base",
            "volume://vols/data",
            "volume://vols/free"
        ]
    );
    let shared = format!("checksum=={}", sum("image://images/app"));
    assert_eq!(
        by(&node, &shared).await,
        ["image://images/app", "image://images/tagged"]
    );
}

#[tokio::test]
async fn hidden_elements_are_shown_when_asked_for() {
    let node = filled().await;
    let all = ids(&node, ListQuery::default()).await;
    assert!(
        !all.iter()
            .any(|id| id.ends_with("hidden") || id.ends_with("scratch"))
    );
    assert!(all.contains(&"network://node/host".to_owned()));
    let query = ListQuery {
        hidden: true,
        kind: Some(Kind::Task),
        ..ListQuery::default()
    };
    assert_eq!(
        ids(&node, query).await,
        ["task://default/hidden", "task://default/owned"]
    );
}

#[tokio::test]
async fn kind_prefix_and_projection_narrow_a_list() {
    let node = filled().await;
    let query = ListQuery {
        kind: Some(Kind::Volume),
        prefix: Some("volume://vols/f".into()),
        projection: Projection::without_metadata(),
        ..ListQuery::default()
    };
    let page = node.layer.list(query).await.unwrap();
    assert_eq!(page.items.len(), 1);
    assert!(page.items[0].rw.is_empty());
    let contradiction = ListQuery {
        kind: Some(Kind::Task),
        prefix: Some("volume://".into()),
        ..ListQuery::default()
    };
    assert_eq!(ids(&node, contradiction).await, Vec::<String>::new());
}

#[tokio::test]
async fn pages_hold_every_element_once() {
    let node = Node::new().await;
    for number in 0..25 {
        node.layer
            .create(task(&format!("task://default/{number:02}")))
            .await
            .unwrap();
    }
    for filters in [
        vec!["kind==task".to_owned()],
        vec!["location==default".into(), "kind==volume".into()],
    ] {
        for limit in [1, 7, 24, 25, 26] {
            let mut query = ListQuery {
                filters: filters.clone(),
                limit,
                ..ListQuery::default()
            };
            let mut seen = Vec::new();
            loop {
                let page = node.layer.list(query.clone()).await.unwrap();
                assert!(page.items.len() <= limit);
                seen.extend(page.items.into_iter().map(|item| item.id.name().to_owned()));
                match page.next {
                    Some(next) => query.page = Some(next),
                    None => break,
                }
            }
            assert_eq!(
                seen,
                (0..25)
                    .map(|number| format!("{number:02}"))
                    .collect::<Vec<_>>()
            );
        }
    }
}

#[tokio::test]
async fn bad_filters_and_tokens_are_refused() {
    let node = Node::new().await;
    let refused = node
        .layer
        .list(ListQuery::filter("kind==image,colour==red"))
        .await;
    assert!(matches!(
        refused,
        Err(ReadError::InvalidFilter { at: 12, .. })
    ));
    for token in [
        "",
        "zz",
        "00000000",
        "0000000061",
        "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
    ] {
        let query = ListQuery {
            page: Some(token.to_owned()),
            ..ListQuery::default()
        };
        let answer = node.layer.list(query).await;
        // The sum of nothing is 0, so eight zeros are the place before everything.
        if token == "00000000" {
            assert!(answer.is_ok());
        } else {
            assert!(matches!(answer, Err(ReadError::InvalidPage)), "{token}");
        }
    }
}
