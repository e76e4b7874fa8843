//! The archive being written: a tar in an unnamed file, each blob straight at its place.

use std::io::{self, SeekFrom};
use std::path::Path;

use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

const BLOCK: u64 = 512;

pub(crate) struct Archive {
    file: File,
    /// Where the entry that is being written begins.
    begun: u64,
}

impl Archive {
    /// A new one; `staging` is a directory on a disk with room for it.
    pub(crate) async fn create(staging: &Path) -> io::Result<Archive> {
        let staging = staging.to_owned();
        let made = tokio::task::spawn_blocking(move || tempfile::tempfile_in(staging)).await;
        let file = made.map_err(io::Error::other)??;
        Ok(Archive {
            file: File::from_std(file),
            begun: 0,
        })
    }

    /// Begins an entry of this many bytes.
    pub(crate) async fn begin(&mut self, path: &str, size: u64) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(path)?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        self.file.write_all(header.as_bytes()).await?;
        self.begun = self.file.stream_position().await?;
        Ok(())
    }

    /// Bytes of the entry.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await
    }

    /// Back to the beginning of the entry: all of it comes again.
    pub(crate) async fn rewind(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.begun)).await.map(drop)
    }

    /// Ends an entry of which `size` bytes were written.
    pub(crate) async fn end(&mut self, size: u64) -> io::Result<()> {
        let over = size % BLOCK;
        if over > 0 {
            let fill = usize::try_from(BLOCK - over).unwrap_or_default();
            self.file.write_all(&[0; 512][..fill]).await?;
        }
        Ok(())
    }

    /// An entry as a whole.
    pub(crate) async fn add(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64;
        self.begin(path, size).await?;
        self.write(bytes).await?;
        self.end(size).await
    }

    /// The whole archive, to be read from its beginning.
    pub(crate) async fn finish(mut self) -> io::Result<File> {
        self.file.write_all(&[0; 1024]).await?;
        self.file.flush().await?;
        self.file.seek(SeekFrom::Start(0)).await?;
        Ok(self.file)
    }
}
