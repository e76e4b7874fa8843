//! Sums of bytes: the ones a definition demands and the ones an upload tells.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::FetchError;
use crate::plan::{Algorithm, Checksum};

/// Sums over a stream: always SHA-256, by which content is named, and MD5 and the demanded one besides.
#[derive(Clone, Default)]
pub(crate) struct Sums {
    md5: Md5,
    sha1: Option<Sha1>,
    sha256: Sha256,
    sha512: Option<Sha512>,
}

impl Sums {
    pub(crate) fn new(demanded: Option<&Checksum>) -> Self {
        let algorithm = demanded.map(|checksum| checksum.algorithm);
        Self {
            sha1: (algorithm == Some(Algorithm::Sha1)).then(Sha1::new),
            sha512: (algorithm == Some(Algorithm::Sha512)).then(Sha512::new),
            ..Self::default()
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sha256.update(bytes);
        if let Some(sum) = &mut self.sha1 {
            sum.update(bytes);
        }
        if let Some(sum) = &mut self.sha512 {
            sum.update(bytes);
        }
    }

    /// SHA-256 in hex.
    pub(crate) fn sha256_hex(&self) -> String {
        hex::encode(self.sha256.clone().finalize())
    }

    /// MD5 and SHA-256 in base64.
    pub(crate) fn base64(&self) -> (String, String) {
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        (
            encode(&self.md5.clone().finalize()),
            encode(&self.sha256.clone().finalize()),
        )
    }

    /// Compares with what is demanded. Error: `Checksum`.
    pub(crate) fn check(&self, demanded: Option<&Checksum>) -> Result<(), FetchError> {
        let Some(demanded) = demanded else {
            return Ok(());
        };
        let actual = match demanded.algorithm {
            Algorithm::Md5 => hex::encode(self.md5.clone().finalize()),
            Algorithm::Sha1 => self
                .sha1
                .clone()
                .map(|sum| hex::encode(sum.finalize()))
                .unwrap_or_default(),
            Algorithm::Sha256 => self.sha256_hex(),
            Algorithm::Sha512 => self
                .sha512
                .clone()
                .map(|sum| hex::encode(sum.finalize()))
                .unwrap_or_default(),
        };
        match actual.eq_ignore_ascii_case(&demanded.hex) {
            true => Ok(()),
            false => Err(FetchError::Checksum {
                algorithm: demanded.algorithm.as_str(),
                actual,
                expected: demanded.hex.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_abc() {
        for (algorithm, hex) in [
            (Algorithm::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Sha1, "A9993E364706816ABA3E25717850C26C9CD0D89D"),
            (
                Algorithm::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                Algorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            let demanded = Checksum {
                algorithm,
                hex: hex.to_owned(),
            };
            let mut sums = Sums::new(Some(&demanded));
            sums.update(b"abc");
            sums.check(Some(&demanded)).unwrap();
            sums.update(b"d");
            assert!(matches!(
                sums.check(Some(&demanded)),
                Err(FetchError::Checksum { .. })
            ));
        }
        Sums::new(None).check(None).unwrap();
    }
}
