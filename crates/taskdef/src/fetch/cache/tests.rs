use std::collections::VecDeque;
use std::io::Cursor;
use std::sync::Mutex as StdMutex;

use async_trait::async_trait;

use super::*;
use crate::plan::{Algorithm, Checksum};

/// A body, not modified, or a status.
type Scripted = Result<Option<&'static [u8]>, u16>;

/// Answers from a script.
#[derive(Default)]
struct Script {
    answers: StdMutex<VecDeque<Scripted>>,
    asked: StdMutex<Vec<Option<Validators>>>,
    etag: Option<&'static str>,
}

#[async_trait]
impl Fetch for Script {
    async fn get(&self, _url: &str, known: Option<&Validators>) -> Result<Answer, FetchError> {
        self.asked.lock().unwrap().push(known.cloned());
        match self.answers.lock().unwrap().pop_front().unwrap() {
            Ok(None) => Ok(Answer::NotModified),
            Ok(Some(bytes)) => Ok(Answer::Body {
                validators: Validators {
                    etag: self.etag.map(str::to_owned),
                    last_modified: None,
                },
                bytes: Box::pin(Cursor::new(bytes)),
            }),
            Err(status) => Err(FetchError::Status {
                host: "h".to_owned(),
                status,
            }),
        }
    }

    async fn post_file(&self, _url: &str, _file: &SendFile<'_>) -> Result<(), FetchError> {
        self.get("", None).await.map(drop)
    }

    async fn post_json(&self, _: &str, _: Vec<u8>, _: Duration) -> Result<u16, FetchError> {
        Err(FetchError::Url)
    }
}

fn archive(key: Option<&str>, sha1: Option<&str>) -> Archive {
    Archive {
        label: None,
        url: "http://h/x".to_owned(),
        cache_key: key.map(str::to_owned),
        checksum: sha1.map(|hex| Checksum {
            algorithm: Algorithm::Sha1,
            hex: hex.to_owned(),
        }),
        format: None,
        source: String::new(),
    }
}

struct Rig {
    fetcher: Fetcher,
    script: Arc<Script>,
    _directory: tempfile::TempDir,
}

fn rig(etag: Option<&'static str>, answers: &[Scripted]) -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let script = Arc::new(Script {
        answers: StdMutex::new(answers.iter().cloned().collect()),
        etag,
        ..Script::default()
    });
    let fetcher = Fetcher::new(script.clone(), directory.path()).unwrap();
    Rig {
        fetcher,
        script,
        _directory: directory,
    }
}

impl Rig {
    async fn fetch(&self, archive: &Archive) -> Result<Fetched, FetchError> {
        self.fetcher.fetch(archive, &CancellationToken::new()).await
    }

    fn asked(&self) -> usize {
        self.script.asked.lock().unwrap().len()
    }
}

#[tokio::test(start_paused = true)]
async fn four_attempts_and_no_more() {
    let rig = rig(
        None,
        &[Err(503), Err(404), Err(500), Err(503), Ok(Some(b"late"))],
    );
    assert!(matches!(
        rig.fetch(&archive(None, None)).await,
        Err(FetchError::Status { status: 503, .. })
    ));
    assert_eq!(rig.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_sum_is_not_tried_again() {
    let rig = rig(None, &[Ok(Some(b"abc"))]);
    assert!(matches!(
        rig.fetch(&archive(None, Some("00"))).await,
        Err(FetchError::Checksum { .. })
    ));
    assert_eq!(rig.asked(), 1);
}

#[tokio::test]
async fn cached_content_is_asked_for_conditionally() {
    let rig = rig(
        Some("one"),
        &[Ok(Some(b"abc")), Ok(None), Ok(None), Ok(Some(b"abd"))],
    );
    let keyed = archive(Some("k"), None);
    assert_eq!(rig.fetch(&keyed).await.unwrap().downloaded_bytes, Some(3));
    let again = rig.fetch(&keyed).await.unwrap();
    assert_eq!(again.downloaded_bytes, None);
    assert_eq!(
        rig.script.asked.lock().unwrap()[1]
            .as_ref()
            .unwrap()
            .etag
            .as_deref(),
        Some("one")
    );
    // A sum is checked on a hit too, and what does not have it is forgotten.
    assert!(matches!(
        rig.fetch(&archive(Some("k"), Some("00"))).await,
        Err(FetchError::Checksum { .. })
    ));
    let fresh = rig.fetch(&keyed).await.unwrap();
    assert_eq!(fresh.downloaded_bytes, Some(3));
    assert_ne!(fresh.sha256, again.sha256);
    assert_eq!(rig.script.asked.lock().unwrap()[3], None);
}

#[tokio::test]
async fn without_validators_nothing_is_kept() {
    let rig = rig(None, &[Ok(Some(b"abc")), Ok(Some(b"abc"))]);
    let keyed = archive(Some("k"), None);
    assert_eq!(rig.fetch(&keyed).await.unwrap().downloaded_bytes, Some(3));
    assert_eq!(rig.fetch(&keyed).await.unwrap().downloaded_bytes, Some(3));
}

#[tokio::test]
async fn the_cache_keeps_what_was_used_last() {
    let mut rig = rig(
        Some("e"),
        &[Ok(Some(b"aaaa")), Ok(Some(b"bbbb")), Ok(Some(b"cccc"))],
    );
    rig.fetcher.cache_bytes = 8;
    for key in ["a", "b", "c"] {
        rig.fetch(&archive(Some(key), None)).await.unwrap();
    }
    let kept = |key: &str| Place::new(rig.fetcher.directory(), key).known().is_some();
    assert_eq!((kept("a"), kept("b"), kept("c")), (false, true, true));
}

#[tokio::test]
async fn cancelling_ends_a_download_at_once() {
    let rig = rig(None, &[]);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let fetched = rig.fetcher.fetch(&archive(None, None), &cancel).await;
    assert!(matches!(fetched, Err(FetchError::Cancelled)));
}
