//! The files of an image archive, read where they lie.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use portlayer::archive::ArchiveError;
use portlayer::store::StoreError;

use super::layer_fault;
use crate::image::fault::{ImageRule, refuse};

/// Bytes of one JSON document.
const DOCUMENT_LIMIT: u64 = 4 << 20;

/// A stretch of a file.
#[derive(Debug, Clone)]
pub(in crate::image) struct Part {
    pub(in crate::image) file: Arc<File>,
    pub(in crate::image) offset: u64,
    pub(in crate::image) size: u64,
}

impl Part {
    pub(in crate::image) fn reader(&self) -> PartReader {
        PartReader {
            part: self.clone(),
            at: 0,
        }
    }
}

/// Reads a part without moving the file's own position, so that several can read one file.
pub(in crate::image) struct PartReader {
    part: Part,
    at: u64,
}

impl Read for PartReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.part.size - self.at).unwrap_or(usize::MAX);
        let want = left.min(buf.len());
        let n = self
            .part
            .file
            .read_at(&mut buf[..want], self.part.offset + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[derive(Debug, Clone)]
pub(super) enum FileAt {
    Data { offset: u64, size: u64 },
    Link(String),
}

pub(super) struct Archive {
    pub(super) files: BTreeMap<String, FileAt>,
    pub(super) part: Part,
}

impl Archive {
    /// Old `docker save` writes a layer that occurs twice once, and a link for the second.
    pub(super) fn find(&self, name: &str) -> Result<Part, StoreError> {
        let missing = || refuse(name, ImageRule::Missing);
        let at = match self.files.get(name).ok_or_else(missing)? {
            FileAt::Link(target) => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                self.files
                    .get(&joined(directory, target).ok_or_else(missing)?)
                    .ok_or_else(missing)?
            }
            data => data,
        };
        match at {
            FileAt::Data { offset, size } => Ok(Part {
                file: self.part.file.clone(),
                offset: self.part.offset + offset,
                size: *size,
            }),
            FileAt::Link(_) => Err(missing()),
        }
    }

    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let part = self.find(name)?;
        if part.size > DOCUMENT_LIMIT {
            return Err(refuse(name, ImageRule::DocumentSize(DOCUMENT_LIMIT)));
        }
        let mut bytes = Vec::new();
        part.reader()
            .read_to_end(&mut bytes)
            .map_err(|e| layer_fault(name, ArchiveError::Read(e)))?;
        Ok(bytes)
    }
}

/// A link's target relative to a directory of the archive, as a name in the archive.
fn joined(directory: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = directory.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
