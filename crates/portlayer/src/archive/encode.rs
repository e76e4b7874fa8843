//! How an archive is packed, and compression of what is written.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use super::Compression;

/// Form of a whole archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// A tar, compressed or not.
    Tar(Compression),
    /// A zip.
    Zip,
}

impl Packing {
    /// Every form, with the name it goes by.
    pub const ALL: [(&'static str, Packing); 6] = [
        ("tar", Packing::Tar(Compression::None)),
        ("tar.gz", Packing::Tar(Compression::Gzip)),
        ("tar.bz2", Packing::Tar(Compression::Bzip2)),
        ("tar.xz", Packing::Tar(Compression::Xz)),
        ("tar.zst", Packing::Tar(Compression::Zstd)),
        ("zip", Packing::Zip),
    ];

    /// Told by the first bytes of an archive (512 are enough). `None` when they begin no archive that is read here.
    pub fn detect(head: &[u8]) -> Option<Packing> {
        if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            return Some(Packing::Zip);
        }
        match Compression::detect(head) {
            Compression::None => {
                let is_tar = head.get(257..262) == Some(b"ustar");
                let is_empty = head.len() >= 512 && head[..512].iter().all(|byte| *byte == 0);
                (is_tar || is_empty).then_some(Packing::Tar(Compression::None))
            }
            compression => Some(Packing::Tar(compression)),
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Packing::ALL.iter().find(|(_, packing)| packing == self);
        f.write_str(known.map_or("tar", |(name, _)| name))
    }
}

/// A name that is no form of archives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("archives are tar, tar.gz, tar.bz2, tar.xz, tar.zst or zip")]
pub struct UnknownPacking;

impl FromStr for Packing {
    type Err = UnknownPacking;

    fn from_str(text: &str) -> Result<Packing, UnknownPacking> {
        let known = Packing::ALL.iter().find(|(name, _)| *name == text);
        known.map(|(_, packing)| *packing).ok_or(UnknownPacking)
    }
}

enum Kind<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Bzip2(bzip2::write::BzEncoder<W>),
    Xz(Box<liblzma::write::XzEncoder<W>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

/// A compressing writer. What is written is whole only after [`Encoder::finish`].
pub struct Encoder<W: Write>(Kind<W>);

impl<W: Write> Encoder<W> {
    /// A writer that compresses as the tool of that name does by default.
    ///
    /// # Errors
    /// When the compressor cannot be made (no memory).
    pub fn new(out: W, compression: Compression) -> io::Result<Encoder<W>> {
        Ok(Encoder(match compression {
            Compression::None => Kind::None(out),
            Compression::Gzip => Kind::Gzip(flate2::write::GzEncoder::new(
                out,
                flate2::Compression::default(),
            )),
            Compression::Bzip2 => Kind::Bzip2(bzip2::write::BzEncoder::new(
                out,
                bzip2::Compression::best(),
            )),
            Compression::Xz => Kind::Xz(Box::new(liblzma::write::XzEncoder::new(out, 6))),
            Compression::Zstd => Kind::Zstd(Box::new(zstd::stream::write::Encoder::new(out, 3)?)),
        }))
    }

    /// Writes the end and gives the output back.
    ///
    /// # Errors
    /// The output's.
    pub fn finish(self) -> io::Result<W> {
        let mut out = match self.0 {
            Kind::None(out) => out,
            Kind::Gzip(encoder) => encoder.finish()?,
            Kind::Bzip2(encoder) => encoder.finish()?,
            Kind::Xz(encoder) => encoder.finish()?,
            Kind::Zstd(encoder) => encoder.finish()?,
        };
        out.flush()?;
        Ok(out)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::None(out) => out.write(bytes),
            Kind::Gzip(encoder) => encoder.write(bytes),
            Kind::Bzip2(encoder) => encoder.write(bytes),
            Kind::Xz(encoder) => encoder.write(bytes),
            Kind::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::None(out) => out.flush(),
            Kind::Gzip(encoder) => encoder.flush(),
            Kind::Bzip2(encoder) => encoder.flush(),
            Kind::Xz(encoder) => encoder.flush(),
            Kind::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Limits, TarBuilder, TarReader};

    #[test]
    fn every_compression_is_told_and_read_back() {
        let tar = TarBuilder::new().file("a", 0o644, &[7; 30_000]).finish();
        for (name, packing) in Packing::ALL {
            assert_eq!(packing.to_string(), name);
            assert_eq!(name.parse(), Ok(packing));
            let Packing::Tar(compression) = packing else {
                continue;
            };
            let mut encoder = Encoder::new(Vec::new(), compression).unwrap();
            encoder.write_all(&tar).unwrap();
            let packed = encoder.finish().unwrap();
            assert_eq!(Packing::detect(&packed), Some(packing));
            // Twice in a row, as tools that append do: any number of members.
            let (first, second) = tar.split_at(1000);
            let members = [first, second].map(|part| {
                let mut encoder = Encoder::new(Vec::new(), compression).unwrap();
                encoder.write_all(part).unwrap();
                encoder.finish().unwrap()
            });
            for bytes in [packed, members.concat()] {
                let mut reader = TarReader::new(bytes.as_slice(), Limits::default()).unwrap();
                let entry = reader.next_entry().unwrap().unwrap();
                assert_eq!((entry.path.as_slice(), entry.size), (&b"a"[..], 30_000));
                assert!(reader.next_entry().unwrap().is_none(), "{name}");
            }
        }
        assert_eq!(Packing::detect(b"hello"), None);
        assert_eq!(Packing::detect(b""), None);
        assert!("rar".parse::<Packing>().is_err());
    }
}
