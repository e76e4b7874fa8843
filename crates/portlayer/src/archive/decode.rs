//! Decompression by magic, with the limits of bytes, ratio and time applied to what comes out.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Instant;

use super::{ArchiveError, FormatRule, Limits};
use crate::element::{Checksum, Summing};

/// Memory an xz stream may ask for: what `xz -9` needs to be read (65 MiB), and room.
const XZ_MEMORY: u64 = 128 << 20;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), any number of members.
    Gzip,
    /// bzip2, any number of streams.
    Bzip2,
    /// xz, any number of streams.
    Xz,
    /// zstd (RFC 8878).
    Zstd,
}

impl Compression {
    /// Told by the first bytes of the stream; anything unknown counts as not compressed.
    pub fn detect(start: &[u8]) -> Compression {
        // A skippable frame (0x184D2A5?) may come first in a zstd stream.
        let skippable = matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            // The head of the first block; of an archive of nothing, that of the end.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ if skippable => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    bytes: u64,
    /// Whether the source itself failed, as against what the decompressor thinks of its bytes.
    broken: bool,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buf);
        match &result {
            Ok(n) => self.bytes += *n as u64,
            Err(e) => self.broken = e.kind() != io::ErrorKind::Interrupted,
        }
        result
    }
}

enum Kind<R: Read> {
    None(BufReader<Counted<R>>),
    Gzip(flate2::bufread::MultiGzDecoder<BufReader<Counted<R>>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<BufReader<Counted<R>>>),
    Xz(Box<liblzma::bufread::XzDecoder<BufReader<Counted<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Counted<R>>>>),
}

/// A decompressing reader that knows its limits.
pub struct Decoder<R: Read> {
    kind: Kind<R>,
    compression: Compression,
    limits: Limits,
    begun: Instant,
    out: u64,
    summing: Option<Summing>,
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes and chooses.
    ///
    /// # Errors
    /// [`ArchiveError::Read`] when the stream cannot be read.
    pub fn new(reader: R, limits: Limits) -> Result<Decoder<R>, ArchiveError> {
        let mut reader = BufReader::with_capacity(
            64 << 10,
            Counted {
                inner: reader,
                bytes: 0,
                broken: false,
            },
        );
        let compression = Compression::detect(reader.fill_buf().map_err(ArchiveError::Read)?);
        let kind = match compression {
            Compression::None => Kind::None(reader),
            Compression::Gzip => Kind::Gzip(flate2::bufread::MultiGzDecoder::new(reader)),
            Compression::Bzip2 => Kind::Bzip2(bzip2::bufread::MultiBzDecoder::new(reader)),
            Compression::Xz => {
                use liblzma::stream::{CONCATENATED, Stream};
                let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)
                    .map_err(|error| ArchiveError::Read(error.into()))?;
                let decoder = liblzma::bufread::XzDecoder::new_stream(reader, stream);
                Kind::Xz(Box::new(decoder))
            }
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(reader).map_err(ArchiveError::Read)?;
                // 128 MiB: what `zstd --long` makes by default; more is memory an archive may not ask for.
                decoder.window_log_max(27).map_err(ArchiveError::Read)?;
                Kind::Zstd(Box::new(decoder))
            }
        };
        Ok(Decoder {
            kind,
            compression,
            limits,
            begun: Instant::now(),
            out: 0,
            summing: None,
        })
    }

    /// What the magic said.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// From here on what is given out is summed.
    pub fn sum(&mut self) {
        self.summing = Some(Summing::default());
    }

    /// The sum of what was given out since [`Decoder::sum`]; that of nothing without it.
    pub fn checksum(&self) -> Checksum {
        self.summing.clone().unwrap_or_default().finish()
    }

    /// Decompressed bytes given out.
    pub fn bytes_out(&self) -> u64 {
        self.out
    }

    fn source(&self) -> &Counted<R> {
        match &self.kind {
            Kind::None(r) => r.get_ref(),
            Kind::Gzip(r) => r.get_ref().get_ref(),
            Kind::Bzip2(r) => r.get_ref().get_ref(),
            Kind::Xz(r) => r.get_ref().get_ref(),
            Kind::Zstd(r) => r.get_ref().get_ref(),
        }
    }

    /// Compressed bytes taken in (read ahead included).
    pub fn bytes_in(&self) -> u64 {
        self.source().bytes
    }

    /// Reads, at least one byte unless the stream ended.
    ///
    /// # Errors
    /// A limit, [`ArchiveError::Truncated`] when a compressed stream stops short, damaged data, or the source's error.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, ArchiveError> {
        let result = loop {
            let result = match &mut self.kind {
                Kind::None(r) => r.read(buf),
                Kind::Gzip(r) => r.read(buf),
                Kind::Bzip2(r) => r.read(buf),
                Kind::Xz(r) => r.read(buf),
                Kind::Zstd(r) => r.read(buf),
            };
            match result {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let n = result.map_err(|e| self.failed(e))?;
        self.out += n as u64;
        if let Some(summing) = &mut self.summing {
            summing.update(&buf[..n]);
        }
        if self.out > self.limits.bytes {
            return Err(ArchiveError::TooManyBytes {
                limit: self.limits.bytes,
            });
        }
        if self.begun.elapsed() > self.limits.time {
            return Err(ArchiveError::TooSlow {
                limit: self.limits.time,
            });
        }
        let over = self.compression != Compression::None && self.out > self.limits.ratio_floor;
        if over && self.out / self.bytes_in().max(1) > self.limits.ratio {
            return Err(ArchiveError::Ratio {
                limit: self.limits.ratio,
            });
        }
        Ok(n)
    }

    fn failed(&self, error: io::Error) -> ArchiveError {
        if self.compression == Compression::None || self.source().broken {
            return ArchiveError::Read(error);
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return ArchiveError::Truncated { at: self.out };
        }
        ArchiveError::Format {
            at: self.out,
            rule: FormatRule::Compression,
        }
    }
}
