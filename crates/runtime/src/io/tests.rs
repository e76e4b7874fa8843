//! Logs and the pump, without an engine.

use std::{
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::TryStreamExt;
use portlayer::{
    element::ElementId,
    runtime::{LogChunk, LogQuery, LogStreams},
    time::Timestamp,
};

use super::*;

fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

fn query() -> LogQuery {
    LogQuery {
        executor: id("executor://local/e"),
        task: id("task://local/t"),
        streams: LogStreams::Both,
        since: None,
        tail: None,
        follow: false,
    }
}

struct Bench {
    _directory: tempfile::TempDir,
    path: PathBuf,
    logs: Logs,
    pump: Pump,
}

/// One stream of a process: the end it writes to and what serves it.
struct Wired {
    writer: fs::File,
    _watched: Watched,
    drained: Drained,
}

impl Bench {
    fn new(bounds: LogBounds) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        Bench {
            _directory: directory,
            logs: Logs::new(path.join("logs"), bounds),
            path,
            pump: Pump::start().unwrap(),
        }
    }

    fn log_directory(&self) -> PathBuf {
        self.logs.directory(&query().executor, &query().task)
    }

    fn wire(&self, stream: Stream) -> Wired {
        let fifo = self.path.join(format!("{stream:?}"));
        make_fifo(&fifo, 0o600).unwrap();
        let log = self.logs.open(&self.log_directory(), None).unwrap();
        let (output, drained) = Output::new(open_reader(&fifo).unwrap(), stream, Some(log), None);
        let watched = self.pump.watch(output).unwrap();
        Wired {
            writer: fs::OpenOptions::new().write(true).open(fifo).unwrap(),
            _watched: watched,
            drained,
        }
    }

    async fn read(&self, query: &LogQuery) -> Vec<LogChunk> {
        reader(&self.logs, query).try_collect().await.unwrap()
    }

    async fn text(&self, query: &LogQuery) -> String {
        self.read(query)
            .await
            .into_iter()
            .map(|chunk| String::from_utf8(chunk.bytes).unwrap())
            .collect()
    }
}

/// Writes and waits until all of it is stored.
async fn write_all(mut wired: Wired, bytes: &[u8]) {
    wired.writer.write_all(bytes).unwrap();
    drop(wired.writer);
    wired.drained.wait(Duration::from_secs(60), || false).await;
}

#[tokio::test]
async fn what_was_written_is_stored_although_the_pump_is_late_and_the_stream_held_open() {
    let bench = Bench::new(LogBounds::default());
    let fifo = bench.path.join("late");
    make_fifo(&fifo, 0o600).unwrap();
    let log = bench.logs.open(&bench.log_directory(), None).unwrap();
    // Nobody pumps it: as late as a pump can be.
    let reader = open_reader(&fifo).unwrap();
    let (_output, mut drained) = Output::new(reader, Stream::Out, Some(log), None);
    let mut writer = fs::OpenOptions::new().write(true).open(fifo).unwrap();
    writer.write_all(b"last words\n").unwrap();
    drained.wait(Duration::from_secs(60), || true).await;
    assert_eq!(bench.text(&query()).await, "last words\n");
    // When nobody can hold it any more its end is waited for, however long nothing comes.
    let wait = drained.wait(Duration::from_secs(60), || false);
    let write = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        writer.write_all(b"later\n").unwrap();
        drop(writer);
    };
    tokio::join!(wait, write);
    assert_eq!(bench.text(&query()).await, "last words\nlater\n");
}

#[tokio::test]
async fn streams_are_kept_apart_and_in_order() {
    let bench = Bench::new(LogBounds::default());
    for (stream, text) in [
        (Stream::Out, "one\n"),
        (Stream::Err, "two\n"),
        (Stream::Out, "three\n"),
    ] {
        write_all(bench.wire(stream), text.as_bytes()).await;
    }
    assert_eq!(bench.text(&query()).await, "one\ntwo\nthree\n");
    assert_eq!(
        bench
            .text(&LogQuery {
                streams: LogStreams::Stderr,
                ..query()
            })
            .await,
        "two\n"
    );
    let chunks = bench.read(&query()).await;
    assert_eq!(
        chunks
            .iter()
            .map(|chunk| chunk.sequence)
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert!(chunks.iter().all(|chunk| chunk.lost_bytes == 0));
    assert_eq!(
        bench
            .text(&LogQuery {
                since: Some(chunks[1].time),
                ..query()
            })
            .await,
        "two\nthree\n"
    );
    assert_eq!(
        bench
            .text(&LogQuery {
                since: Some(Timestamp::from_nanos(i64::MAX)),
                ..query()
            })
            .await,
        ""
    );
}

#[tokio::test]
async fn tail_counts_lines_and_not_pieces() {
    let bench = Bench::new(LogBounds::default());
    write_all(bench.wire(Stream::Out), b"a\nb\nc").await;
    write_all(bench.wire(Stream::Out), b"d\ne\n").await;
    for (tail, expected) in [
        (0, ""),
        (1, "e\n"),
        (2, "cd\ne\n"),
        (3, "b\ncd\ne\n"),
        (9, "a\nb\ncd\ne\n"),
    ] {
        assert_eq!(
            bench
                .text(&LogQuery {
                    tail: Some(tail),
                    ..query()
                })
                .await,
            expected,
            "tail {tail}"
        );
    }
}

#[tokio::test]
async fn rotation_bounds_the_files_and_tells_the_gap() {
    let bounds = LogBounds {
        segment_bytes: 100_000,
        segments: 3,
    };
    let bench = Bench::new(bounds);
    let line: Vec<u8> = b"0123456789abcde\n".repeat(50_000);
    write_all(bench.wire(Stream::Out), &line).await;
    let kept: u64 = fs::read_dir(bench.log_directory())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept < 3 * (100_000 + 65_536 + 10_000), "{kept}");
    let chunks = bench.read(&query()).await;
    let read: u64 = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
    let lost: u64 = chunks.iter().map(|chunk| chunk.lost_bytes).sum();
    assert!(lost > 0);
    assert_eq!(read + lost, line.len() as u64);
}

#[tokio::test]
async fn a_follower_sees_everything_and_ends_with_the_writer() {
    let bench = Bench::new(LogBounds {
        segment_bytes: 1_000,
        segments: 1_000,
    });
    let mut wired = bench.wire(Stream::Out);
    let mut log = reader(
        &bench.logs,
        &LogQuery {
            follow: true,
            ..query()
        },
    );
    let mut seen = Vec::new();
    for number in 0..200 {
        let line = format!("line {number}\n");
        wired.writer.write_all(line.as_bytes()).unwrap();
        while !seen.ends_with(line.as_bytes()) {
            seen.extend(log.try_next().await.unwrap().unwrap().bytes);
        }
    }
    drop(wired.writer);
    while let Some(chunk) = log.try_next().await.unwrap() {
        seen.extend(chunk.bytes);
    }
    let expected: String = (0..200).map(|number| format!("line {number}\n")).collect();
    assert_eq!(String::from_utf8(seen).unwrap(), expected);
}

#[tokio::test]
async fn a_piece_without_its_record_is_found_after_a_crash() {
    let bench = Bench::new(LogBounds::default());
    write_all(bench.wire(Stream::Out), b"first\n").await;
    // Died between the bytes and the record, and in the middle of the record before it.
    let append = |name: &str, bytes: &[u8]| {
        fs::OpenOptions::new()
            .append(true)
            .open(bench.log_directory().join(name))
            .unwrap()
            .write_all(bytes)
            .unwrap();
    };
    append("00000000.out", b"second\n");
    append("00000000.idx", &[7; 20]);
    write_all(bench.wire(Stream::Out), b"third\n").await;
    assert_eq!(bench.text(&query()).await, "first\nsecond\nthird\n");
}

#[tokio::test]
async fn what_cannot_be_stored_is_dropped_and_counted() {
    let bench = Bench::new(LogBounds::default());
    // A directory on a file system with room for little.
    let directory = bench.log_directory();
    fs::create_dir_all(&directory).unwrap();
    let Ok(()) = mount_tiny(&directory) else {
        // Without root there is no such file system; the suite of the node has it.
        assert!(!nix::unistd::geteuid().is_root());
        return;
    };
    fs::write(directory.join("ballast"), vec![0; 192 << 10]).unwrap();
    // Keeps the log open, and with it the count.
    let _other = bench.wire(Stream::Err);
    let written = vec![b'x'; 1 << 20];
    write_all(bench.wire(Stream::Out), &written).await;
    fs::remove_file(directory.join("ballast")).unwrap();
    write_all(bench.wire(Stream::Out), b"after\n").await;
    let chunks = bench.read(&query()).await;
    rustix::mount::unmount(&directory, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(
        chunks
            .last()
            .is_some_and(|chunk| chunk.bytes.ends_with(b"after\n")),
        "{chunks:?}"
    );
    let stored: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    let lost: u64 = chunks.iter().map(|chunk| chunk.lost_bytes).sum();
    assert!(lost > 0);
    assert_eq!(stored as u64 + lost, written.len() as u64 + 6);
}

#[tokio::test]
async fn what_was_dropped_at_the_end_is_told() {
    let bench = Bench::new(LogBounds::default());
    let directory = bench.log_directory();
    fs::create_dir_all(&directory).unwrap();
    let Ok(()) = mount_tiny(&directory) else {
        assert!(!nix::unistd::geteuid().is_root());
        return;
    };
    let wired = bench.wire(Stream::Err);
    // Full while it runs.
    let _ = fs::write(directory.join("ballast"), vec![0; 1 << 20]);
    write_all(wired, b"no space left\n").await;
    let query = LogQuery {
        streams: LogStreams::Stderr,
        follow: true,
        ..query()
    };
    let chunks = bench.read(&query).await;
    let again = bench.read(&query).await;
    rustix::mount::unmount(&directory, rustix::mount::UnmountFlags::DETACH).unwrap();
    let told: Vec<_> = chunks
        .iter()
        .map(|chunk| (chunk.bytes.len(), chunk.lost_bytes))
        .collect();
    assert_eq!(told, [(0, 14)]);
    assert_eq!(again, chunks);
}

#[tokio::test]
async fn a_log_that_is_opened_while_it_is_closed_tells_each_loss_once() {
    const RUNS: usize = 30;
    let bench = Bench::new(LogBounds::default());
    let directory = bench.log_directory();
    fs::create_dir_all(&directory).unwrap();
    let Ok(()) = mount_tiny(&directory) else {
        assert!(!nix::unistd::geteuid().is_root());
        return;
    };
    // From now on the disk has room for records, and for nothing else.
    drop(bench.logs.open(&directory, None).unwrap());
    let _ = fs::write(directory.join("ballast"), vec![0; 1 << 20]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..RUNS {
                    let (fifo, writer) = rustix::pipe::pipe().unwrap();
                    rustix::io::write(&writer, b"lost!").unwrap();
                    let log = bench.logs.open(&directory, None).unwrap();
                    log.store(Stream::Out, fifo.as_fd(), None).unwrap();
                }
            });
        }
    });
    let chunks = bench.read(&query()).await;
    rustix::mount::unmount(&directory, rustix::mount::UnmountFlags::DETACH).unwrap();
    let sequences: Vec<_> = chunks.iter().map(|chunk| chunk.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    let lost: u64 = chunks.iter().map(|chunk| chunk.lost_bytes).sum();
    assert_eq!(lost, 2 * RUNS as u64 * 5);
}

fn mount_tiny(directory: &Path) -> Result<(), rustix::io::Errno> {
    rustix::mount::mount(
        "tmpfs",
        directory,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"size=256k",
    )
}

#[tokio::test]
async fn readers_that_never_read_hold_nobody_up() {
    let bench = Bench::new(LogBounds {
        segment_bytes: 1 << 20,
        segments: 2,
    });
    let _asleep: Vec<_> = (0..10)
        .map(|_| {
            reader(
                &bench.logs,
                &LogQuery {
                    follow: true,
                    ..query()
                },
            )
        })
        .collect();
    write_all(bench.wire(Stream::Out), &vec![b'x'; 8 << 20]).await;
}
