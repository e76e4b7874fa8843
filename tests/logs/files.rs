//! Files with bounds of their own, nowhere, and what is handed over.

use std::io::Read;

use nix::sys::stat::Mode;
use portlayer::runtime::LogStreams;
use portlayer::task::LogChoice;

use super::world::{World, close, log, run, shell, stored};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_log_has_its_bounds_and_null_has_nothing() {
    let world = World::new();
    let node = world.node(None).await;
    let small = log(
        &node,
        "small",
        &[("kind", "file"), ("file_bytes", "4096"), ("files", "2")],
    )
    .await;
    let null = log(&node, "null", &[("kind", "null")]).await;
    let script = "i=0; while [ $i -lt 200 ]; do head -c 4000 /dev/zero | tr '\\0' x; sleep 0.002; i=$((i+1)); done";
    run(&node, "a", &[&small], shell(script)).await;
    let (kept, lost) = stored(&node, "a", LogStreams::Both).await;
    // Two files, each larger than its bound by what a FIFO holds at most.
    assert!(kept.len() <= 2 * (4096 + 65_536), "{}", kept.len());
    assert_eq!(kept.len() as u64 + lost, 800_000);
    run(&node, "b", &[&null], shell("echo gone")).await;
    assert_eq!(
        stored(&node, "b", LogStreams::Both).await,
        (String::new(), 0)
    );
    // One stream of two.
    let mut spec = shell("echo out; echo err >&2");
    spec.stderr = LogChoice {
        sink: Some(null.clone()),
        ..LogChoice::default()
    };
    run(&node, "c", &[&null, &small], spec).await;
    assert_eq!(stored(&node, "c", LogStreams::Both).await.0, "out\n");
    close(node, &["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_or_a_file_of_a_caller_gets_the_bytes_and_nothing_is_stored() {
    let world = World::new();
    let node = world.node(None).await;
    let (fifo, file) = (world.at("fifo"), world.at("file"));
    nix::unistd::mkfifo(fifo.as_str(), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    std::fs::write(&file, "").unwrap();
    let path = fifo.clone();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    });
    let to_fifo = log(&node, "fifo", &[("kind", "path"), ("path", &fifo)]).await;
    let to_file = log(&node, "file-of-mine", &[("kind", "path"), ("path", &file)]).await;
    let mut spec = shell("printf 'out\\000\\377'; printf err >&2");
    spec.stdout = LogChoice {
        sink: Some(to_fifo.clone()),
        required: true,
        discard: false,
    };
    spec.stderr = LogChoice {
        sink: Some(to_file.clone()),
        required: true,
        discard: false,
    };
    run(&node, "a", &[&to_fifo, &to_file], spec).await;
    assert_eq!(
        tokio::task::spawn_blocking(move || reader.join().unwrap())
            .await
            .unwrap(),
        b"out\0\xff"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"err");
    assert_eq!(
        stored(&node, "a", LogStreams::Both).await,
        (String::new(), 0)
    );
    close(node, &["a"]).await;
}
