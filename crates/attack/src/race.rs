//! Symlinks swapped in while files are extracted into a tree and collected from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use portlayer::archive::{
    ExtractOptions, Root, TarBuilder, WriteOptions, extract, place, read_file, write_at,
};

const SECRET: &[u8] = b"sentinel-of-the-race";

/// What one kind of operation came to.
#[derive(Debug, Default, serde::Serialize)]
struct Figures {
    tried: u32,
    /// It went through.
    done: u32,
    /// A typed error: something stood in the way.
    refused: u32,
    /// It touched or told what is outside.
    outside: u32,
}

/// A directory that another thread swaps, again and again, with a link to somewhere outside.
struct Swapper {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    fn start(directory: PathBuf, link: PathBuf) -> Swapper {
        let (stop, swaps) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, count) = (stop.clone(), swaps.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let exchange = RenameFlags::RENAME_EXCHANGE;
                if renameat2(AT_FDCWD, &directory, AT_FDCWD, &link, exchange).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Swapper {
            stop,
            swaps,
            thread: Some(thread),
        }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the swapper is no matter: nothing is swapped then, which the count shows.
            let _ = thread.join();
        }
    }
}

/// Races `count` operations, half of them extractions. True: none went outside, and there were as many swaps.
pub(crate) fn run(count: u32) -> Result<bool> {
    let begun = Instant::now();
    let place = tempfile::Builder::new()
        .prefix("pl-attack-")
        .tempdir_in("/var/tmp")?;
    let outside = place.path().join("outside");
    std::fs::create_dir_all(outside.join("sub"))?;
    std::fs::write(outside.join("file"), SECRET)?;
    std::fs::write(outside.join("sub/file"), SECRET)?;
    let root = place.path().join("root");
    std::fs::create_dir_all(root.join("swapped/sub"))?;
    for file in ["swapped/file", "swapped/sub/file"] {
        std::fs::write(root.join(file), "inside")?;
    }
    std::os::unix::fs::symlink(&outside, root.join("link"))?;
    let swapper = Swapper::start(root.join("swapped"), root.join("link"));
    let each = count.div_ceil(5).max(1);
    let kinds: [(&str, Operation); 5] = [
        ("extract", extraction),
        ("place", placing),
        ("result", result),
        ("result, links followed", followed),
        ("artifact", artifact),
    ];
    let mut all = serde_json::Map::new();
    let (mut outside_count, mut tried) = (0, 0);
    for (name, operation) in kinds {
        let mut figures = Figures::default();
        for number in 0..each {
            figures.tried += 1;
            match operation(&root, number) {
                Ok(told) if contains(&told, SECRET) => figures.outside += 1,
                Ok(_) => figures.done += 1,
                Err(()) => figures.refused += 1,
            }
            if !untouched(&outside)? {
                figures.outside += 1;
                restore(&outside)?;
            }
        }
        println!(
            "{name:<24} {:>5} tried, {:>5} done, {:>5} refused, {} outside",
            figures.tried, figures.done, figures.refused, figures.outside
        );
        outside_count += figures.outside;
        tried += figures.tried;
        all.insert(name.to_owned(), serde_json::to_value(figures)?);
    }
    let swaps = swapper.swaps.load(Ordering::Relaxed);
    drop(swapper);
    // Fewer swaps than operations would be no race.
    let held = outside_count == 0 && swaps >= u64::from(tried);
    println!("{swaps} swaps meanwhile");
    let figures = serde_json::json!({
        "attack": "race", "held": held, "tried": tried, "swaps": swaps, "outside": outside_count, "kinds": all,
        "seconds": begun.elapsed().as_secs_f64(),
    });
    println!("{figures}");
    Ok(held)
}

/// One operation; what it told, or that it was refused.
type Operation = fn(&Path, u32) -> Result<Vec<u8>, ()>;

fn archive(number: u32) -> Vec<u8> {
    TarBuilder::new()
        .mtime(u64::from(number))
        .dir("swapped/sub", 0o700)
        .file("swapped/sub/new", 0o4777, b"written")
        .file("swapped/file", 0o666, b"inside")
        .symlink("swapped/sub/s", "/etc/passwd")
        .hardlink("swapped/sub/hard", "swapped/file")
        .dir("swapped/more/and/more", 0o777)
        .finish()
}

fn extraction(root: &Path, number: u32) -> Result<Vec<u8>, ()> {
    let root = Root::open(root).map_err(drop)?;
    extract(
        archive(number).as_slice(),
        &root,
        &ExtractOptions::default(),
    )
    .map(|_| Vec::new())
    .map_err(drop)
}

fn placing(root: &Path, number: u32) -> Result<Vec<u8>, ()> {
    let root = Root::open(root).map_err(drop)?;
    let tar = archive(number);
    let to = Path::new(if number.is_multiple_of(2) {
        "/"
    } else {
        "/swapped/sub"
    });
    place(
        tar.as_slice(),
        &root,
        to,
        &ExtractOptions::default(),
        &|uid, gid| (uid, gid),
    )
    .map(|_| Vec::new())
    .map_err(drop)
}

fn result(root: &Path, _: u32) -> Result<Vec<u8>, ()> {
    read(root, false)
}

fn followed(root: &Path, _: u32) -> Result<Vec<u8>, ()> {
    read(root, true)
}

fn read(root: &Path, follow: bool) -> Result<Vec<u8>, ()> {
    let root = Root::open(root).map_err(drop)?;
    let mut all = Vec::new();
    for path in ["swapped/file", "swapped/sub/file", "swapped"] {
        if let Ok((bytes, _)) = read_file(&root, Path::new(path), 1 << 10, follow) {
            all.extend(bytes);
        }
    }
    match all.is_empty() {
        true => Err(()),
        false => Ok(all),
    }
}

fn artifact(root: &Path, number: u32) -> Result<Vec<u8>, ()> {
    let root = Root::open(root).map_err(drop)?;
    let mut tar = Vec::new();
    let path = Path::new(if number.is_multiple_of(2) {
        "."
    } else {
        "swapped"
    });
    let options = WriteOptions::whole();
    write_at(&root, path, b"", &mut tar, &options, &|uid, gid| (uid, gid)).map_err(drop)?;
    Ok(tar)
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn untouched(outside: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let mut names: Vec<String> = Vec::new();
    for directory in ["", "sub"] {
        for entry in std::fs::read_dir(outside.join(directory)).context("the sentinels")? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        let mode = outside.join(directory).metadata()?.mode() & 0o7777;
        if mode != 0o755 {
            return Ok(false);
        }
        let file = outside.join(directory).join("file");
        let meta = file.metadata()?;
        if std::fs::read(&file)? != SECRET || meta.nlink() != 1 || meta.mode() & 0o7777 != 0o644 {
            return Ok(false);
        }
    }
    names.sort();
    Ok(names == ["file", "file", "sub"])
}

/// After an escape, so that it is counted once.
fn restore(outside: &Path) -> Result<()> {
    std::fs::remove_dir_all(outside)?;
    std::fs::create_dir_all(outside.join("sub"))?;
    std::fs::write(outside.join("file"), SECRET)?;
    std::fs::write(outside.join("sub/file"), SECRET)?;
    Ok(())
}
