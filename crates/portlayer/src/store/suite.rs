//! What every [`Store`] for volumes must do: run [`check`] on each implementation.
//!
//! The checks panic with what is wrong, like any test. They expect an empty store and leave an empty store.

use std::io::Cursor;

use tokio::io::AsyncReadExt;

use super::{Put, Store, StoreError, Stored};
use crate::archive::TarBuilder;
use crate::element::{
    Body, Checksum, ElementId, Kind, Metadata, Record, Spec, State, VolumeBody, VolumeSpec,
};
use crate::time::Timestamp;

/// Runs every check, each on a fresh store made by `make`.
pub async fn check<S: Store>(make: impl AsyncFn() -> S) {
    an_empty_volume_is_stored_listed_and_removed(&make().await).await;
    leftovers_of_a_crashed_put_are_replaced(&make().await).await;
    the_sweep_removes_what_no_record_owns(&make().await).await;
    attach_and_detach_are_idempotent(&make().await).await;
    missing_bytes_have_a_name(&make().await).await;
    let store = make().await;
    if store.capabilities().data {
        data_comes_back_with_its_sum(&store).await;
        a_wrong_sum_leaves_nothing(&make().await).await;
        a_broken_stream_leaves_nothing(&make().await).await;
        a_dropped_put_can_be_swept(&make().await).await;
    }
    let store = make().await;
    if store.capabilities().parent_volume {
        a_child_has_the_content_of_its_parent(&store).await;
    }
    make()
        .await
        .health()
        .await
        .expect("a usable store is healthy");
}

fn volume(name: &str) -> ElementId {
    ElementId::new(Kind::Volume, "suite", name).expect("the names of the suite are well-formed")
}

fn plain() -> Spec {
    Spec::Volume(VolumeSpec::default())
}

fn record(id: &ElementId, stored: Stored) -> Record {
    let now = Timestamp::now();
    Record {
        id: id.clone(),
        parent: None,
        owner: None,
        checksum: stored.checksum,
        size: stored.size,
        ro: Metadata::new(),
        rw: Metadata::new(),
        revision: 1,
        created: now,
        modified: now,
        state: State::Ready,
        hidden: false,
        body: Body::Volume(Box::new(VolumeBody {
            spec: VolumeSpec::default(),
            keys: stored.keys,
        })),
    }
}

fn tar() -> Vec<u8> {
    TarBuilder::new()
        .dir("dir/", 0o755)
        .file("dir/file", 0o640, b"content of the file")
        .finish()
}

async fn put(
    store: &impl Store,
    id: &ElementId,
    data: Option<Vec<u8>>,
    checksum: Option<Checksum>,
) -> Result<Record, StoreError> {
    let stored = store
        .put(Put {
            id,
            spec: &plain(),
            parent: None,
            data: data.map(|bytes| Box::pin(Cursor::new(bytes)) as _),
            checksum,
            progress: None,
        })
        .await?;
    Ok(record(id, stored))
}

async fn remove(store: &impl Store, record: &Record) {
    let Body::Volume(body) = &record.body else {
        panic!("the suite makes volumes only");
    };
    for _ in 0..2 {
        store
            .remove(&record.id, &body.keys)
            .await
            .expect("remove is idempotent");
    }
    assert_empty(store).await;
}

async fn assert_empty(store: &impl Store) {
    let listed = store.list().await.expect("list");
    assert!(listed.is_empty(), "nothing must be left, found {listed:?}");
}

async fn bytes_of(store: &impl Store, record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = store.export(record).await.expect("export");
    stream
        .read_to_end(&mut bytes)
        .await
        .expect("an export can be read to its end");
    bytes
}

async fn an_empty_volume_is_stored_listed_and_removed(store: &impl Store) {
    let id = volume("empty");
    let made = put(store, &id, None, None).await.expect("put");
    assert_eq!(store.list().await.expect("list"), [id.digest_hex()]);
    assert_eq!(made.checksum, None, "no data has no sum");
    remove(store, &made).await;
}

async fn leftovers_of_a_crashed_put_are_replaced(store: &impl Store) {
    let id = volume("again");
    put(store, &id, None, None).await.expect("put");
    let made = put(store, &id, None, None)
        .await
        .expect("a second put replaces the first");
    assert_eq!(store.list().await.expect("list"), [id.digest_hex()]);
    remove(store, &made).await;
}

async fn the_sweep_removes_what_no_record_owns(store: &impl Store) {
    let (a, b) = (volume("a"), volume("b"));
    let kept = put(store, &a, None, None).await.expect("put");
    put(store, &b, None, None).await.expect("put");
    for _ in 0..2 {
        store
            .sweep(&b.digest_hex())
            .await
            .expect("sweep is idempotent");
    }
    assert_eq!(store.list().await.expect("list"), [a.digest_hex()]);
    remove(store, &kept).await;
}

async fn attach_and_detach_are_idempotent(store: &impl Store) {
    let id = volume("attached");
    let made = put(store, &id, None, None).await.expect("put");
    let Body::Volume(body) = &made.body else {
        panic!("the suite makes volumes only");
    };
    let executors = ["x1", "x2"].map(|name| {
        ElementId::new(Kind::Executor, "suite", name)
            .expect("the names of the suite are well-formed")
    });
    for executor in &executors {
        let first = store.attach(&made, executor).await.expect("attach");
        let second = store.attach(&made, executor).await.expect("attach again");
        assert_eq!(first, second);
    }
    for executor in &executors {
        for _ in 0..2 {
            store
                .detach(&id, &body.keys, executor)
                .await
                .expect("detach is idempotent");
        }
    }
    remove(store, &made).await;
}

async fn missing_bytes_have_a_name(store: &impl Store) {
    let id = volume("missing");
    let made = put(store, &id, None, None).await.expect("put");
    store.sweep(&id.digest_hex()).await.expect("sweep");
    assert!(matches!(
        store.export(&made).await.err(),
        Some(StoreError::Missing(_))
    ));
}

async fn data_comes_back_with_its_sum(store: &impl Store) {
    let (id, bytes) = (volume("data"), tar());
    let sum = Checksum::of(&bytes);
    let size = bytes.len() as u64;
    let made = put(store, &id, Some(bytes), Some(sum)).await.expect("put");
    assert_eq!((made.checksum, made.size), (Some(sum), size));
    let exported = bytes_of(store, &made).await;
    let text = b"content of the file";
    assert!(
        exported.windows(text.len()).any(|window| window == text),
        "the export holds the file's content"
    );
    remove(store, &made).await;
}

async fn a_wrong_sum_leaves_nothing(store: &impl Store) {
    let wrong = Checksum::of(b"something else");
    let refused = put(store, &volume("wrong"), Some(tar()), Some(wrong)).await;
    assert!(matches!(
        refused.err(),
        Some(StoreError::ChecksumMismatch { expected, actual })
            if expected == wrong && actual == Checksum::of(&tar())
    ));
    assert_empty(store).await;
}

async fn a_broken_stream_leaves_nothing(store: &impl Store) {
    let half = Cursor::new(tar()[..600].to_vec());
    let broken = half.chain(tokio_util::io::StreamReader::new(futures::stream::iter([
        Err::<bytes::Bytes, _>(std::io::Error::other("the line is dead")),
    ])));
    let id = volume("broken");
    let refused = store
        .put(Put {
            id: &id,
            spec: &plain(),
            parent: None,
            data: Some(Box::pin(broken)),
            checksum: None,
            progress: None,
        })
        .await;
    assert!(matches!(refused.err(), Some(StoreError::Data(_))));
    assert_empty(store).await;
}

async fn a_dropped_put_can_be_swept(store: &impl Store) {
    let (id, (mut feed, data)) = (volume("dropped"), tokio::io::duplex(64));
    {
        let spec = plain();
        let put = store.put(Put {
            id: &id,
            spec: &spec,
            parent: None,
            data: Some(Box::pin(data)),
            checksum: None,
            progress: None,
        });
        tokio::pin!(put);
        let sent = tokio::io::AsyncWriteExt::write_all(&mut feed, &[0; 512]);
        tokio::select! {
            _ = &mut put => panic!("the stream has not ended"),
            sent = sent => sent.expect("the put reads its stream"),
        }
    }
    drop(feed);
    store.sweep(&id.digest_hex()).await.expect("sweep");
    let made = put(store, &id, None, None)
        .await
        .expect("the id can be used again");
    assert_eq!(store.list().await.expect("list"), [id.digest_hex()]);
    remove(store, &made).await;
}

async fn a_child_has_the_content_of_its_parent(store: &impl Store) {
    let (parent, child) = (volume("parent"), volume("child"));
    let data = store.capabilities().data.then(tar);
    let parent = put(store, &parent, data, None).await.expect("put");
    assert!(
        store.shares_backing(&parent),
        "a volume of the same store shares its backing"
    );
    let stored = store
        .put(Put {
            id: &child,
            spec: &plain(),
            parent: Some(&parent),
            data: None,
            checksum: None,
            progress: None,
        })
        .await
        .expect("put of a child");
    let child = record(&child, stored);
    assert_eq!(
        bytes_of(store, &child).await,
        bytes_of(store, &parent).await
    );
    let Body::Volume(body) = &parent.body else {
        panic!("the suite makes volumes only");
    };
    store.remove(&parent.id, &body.keys).await.expect("remove");
    remove(store, &child).await;
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;

    #[tokio::test]
    async fn the_memory_store_passes() {
        super::check(async || MemoryStore::default()).await;
    }
}
