//! Instance identity: for each run a key and a certificate of the operator's authority, renewed while it lives. What Diego's
//! credential manager issues (docs/task-definitions.md, "Certificates").

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use openssl::asn1::{Asn1Integer, Asn1Time, Asn1Type};
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
};
use openssl::x509::{X509, X509Builder, X509Name};
use portlayer::archive::TarBuilder;
use portlayer::time::Timestamp;
use thiserror::Error;

use crate::plan::Identity;

/// Where a run finds them.
pub(crate) const DIRECTORY: &str = "/etc/cf-instance-credentials";
/// The certificate and its authority's, in that directory.
const CERTIFICATE: &str = "instance.crt";
/// The key.
const KEY: &str = "instance.key";
/// Bits of a key, as Diego's.
const KEY_BITS: u32 = 3072;
/// A key takes up to a few seconds.
const SHORTEST: Duration = Duration::from_secs(5);
/// Bits of a serial number: X.509 allows 159.
const SERIAL_BITS: i32 = 159;

/// Why an authority cannot be used.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The certificate is none.
    #[error("its certificate cannot be read")]
    Certificate(#[source] ErrorStack),
    /// The key is none.
    #[error("its key cannot be read")]
    Key(#[source] ErrorStack),
    /// They do not belong together.
    #[error("its key is not that of its certificate")]
    Mismatch,
    /// Certificates would be over before they are read.
    #[error("its certificates must hold for five seconds at least")]
    Validity,
}

/// Who signs the certificates of runs.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
    validity: Duration,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.certificate.subject_name();
        write!(f, "Authority({subject:?}, {:?})", self.validity)
    }
}

/// The files of one run, PEM.
pub(crate) struct Credentials {
    /// Its certificate, then the authority's.
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Authority {
    /// From a certificate and its key, both PEM; what it issues holds for `validity`.
    ///
    /// # Errors
    /// All of [`AuthorityError`].
    pub fn new(certificate: &[u8], key: &[u8], validity: Duration) -> Result<Self, AuthorityError> {
        let certificate = X509::from_pem(certificate).map_err(AuthorityError::Certificate)?;
        let key = PKey::private_key_from_pem(key).map_err(AuthorityError::Key)?;
        let public = certificate.public_key();
        if !public.is_ok_and(|public| public.public_eq(&key)) {
            return Err(AuthorityError::Mismatch);
        }
        if validity < SHORTEST {
            return Err(AuthorityError::Validity);
        }
        Ok(Self {
            certificate,
            key,
            validity,
        })
    }

    /// How long after an issue the next is due: half an hour before the end, of short ones an eighth before it.
    pub(crate) fn renewal(&self) -> Duration {
        const LONG: Duration = Duration::from_secs(4 * 3600);
        const BEFORE: Duration = Duration::from_secs(1800);
        match self.validity > LONG {
            true => self.validity - BEFORE,
            false => self.validity - self.validity / 8,
        }
    }

    /// A new key and a certificate for it. Blocks, for about a second.
    pub(crate) fn issue(
        &self,
        identity: &Identity,
        addresses: &[IpAddr],
    ) -> Result<Credentials, ErrorStack> {
        let rsa = Rsa::generate(KEY_BITS)?;
        let key = PKey::from_rsa(rsa.clone())?;
        let mut serial = BigNum::new()?;
        serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
        let validity = i64::try_from(self.validity.as_secs()).unwrap_or(i64::MAX);
        let now = Timestamp::now().as_nanos() / 1_000_000_000;
        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        builder.set_serial_number(Asn1Integer::from_bn(&serial)?.as_ref())?;
        builder.set_subject_name(subject(identity)?.as_ref())?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.set_not_before(Asn1Time::from_unix(now)?.as_ref())?;
        builder.set_not_after(Asn1Time::from_unix(now.saturating_add(validity))?.as_ref())?;
        builder.set_pubkey(&key)?;
        let mut usage = KeyUsage::new();
        usage.critical().digital_signature().key_encipherment();
        builder.append_extension(usage.key_agreement().build()?)?;
        let mut usage = ExtendedKeyUsage::new();
        builder.append_extension(usage.client_auth().server_auth().build()?)?;
        let mut names = SubjectAlternativeName::new();
        names.dns(&identity.name);
        for address in addresses {
            names.ip(&address.to_string());
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let mut extensions = vec![names.build(&context)?];
        // Not every authority has a name for its key.
        if self.certificate.subject_key_id().is_some() {
            let mut issuer = AuthorityKeyIdentifier::new();
            extensions.push(issuer.keyid(false).build(&context)?);
        }
        for extension in extensions {
            builder.append_extension(extension)?;
        }
        // Ed25519 has its digest inside.
        let digest = match self.key.id() {
            Id::ED25519 | Id::ED448 => MessageDigest::null(),
            _ => MessageDigest::sha256(),
        };
        builder.sign(&self.key, digest)?;
        let mut certificate = builder.build().to_pem()?;
        certificate.extend(self.certificate.to_pem()?);
        Ok(Credentials {
            certificate,
            key: rsa.private_key_to_pem()?,
        })
    }
}

/// Names longer than X.520 allows (64) are taken as Diego takes them: its guids have no bound.
fn subject(identity: &Identity) -> Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    for unit in &identity.organizational_units {
        name.append_entry_by_nid_with_type(
            Nid::ORGANIZATIONALUNITNAME,
            unit,
            Asn1Type::UTF8STRING,
        )?;
    }
    name.append_entry_by_nid_with_type(Nid::COMMONNAME, &identity.name, Asn1Type::UTF8STRING)?;
    Ok(name.build())
}

impl Credentials {
    /// As files for the directory of a run: everybody inside may read them, nobody write.
    pub(crate) fn tar(&self) -> Vec<u8> {
        TarBuilder::new()
            .file(CERTIFICATE, 0o444, &self.certificate)
            .file(KEY, 0o444, &self.key)
            .finish()
    }
}

/// What tells a run where they are.
pub(crate) fn environment() -> [(String, String); 2] {
    [("CF_INSTANCE_CERT", CERTIFICATE), ("CF_INSTANCE_KEY", KEY)]
        .map(|(name, file)| (name.to_owned(), format!("{DIRECTORY}/{file}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An authority of its own, and its key in another form.
    fn authority(key: &PKey<Private>, validity: Duration) -> Result<Authority, AuthorityError> {
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_text("CN", "authority").unwrap();
        let name = name.build();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(key).unwrap();
        let day = |days| Asn1Time::days_from_now(days).unwrap();
        builder.set_not_before(&day(0)).unwrap();
        builder.set_not_after(&day(1)).unwrap();
        let mut constraints = openssl::x509::extension::BasicConstraints::new();
        let constraints = constraints.critical().ca().build().unwrap();
        builder.append_extension(constraints).unwrap();
        let digest = match key.id() {
            Id::ED25519 => MessageDigest::null(),
            _ => MessageDigest::sha256(),
        };
        builder.sign(key, digest).unwrap();
        let pem = builder.build().to_pem().unwrap();
        Authority::new(&pem, &key.private_key_to_pem_pkcs8().unwrap(), validity)
    }

    fn key() -> PKey<Private> {
        PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_certificate_says_who_the_run_is_and_is_the_authoritys() {
        for signer in [key(), PKey::generate_ed25519().unwrap()] {
            let authority = authority(&signer, DAY).unwrap();
            let identity = Identity {
                name: format!("guid_{}", "x".repeat(80)),
                organizational_units: vec!["organization:a".into(), "app:b".into(), "app:c".into()],
            };
            let addresses = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
            let issued = authority.issue(&identity, &addresses).unwrap();
            let chain = X509::stack_from_pem(&issued.certificate).unwrap();
            let [leaf, issuer] = chain.as_slice() else {
                panic!("{} certificates", chain.len());
            };
            assert!(leaf.verify(&issuer.public_key().unwrap()).unwrap());
            let names = |nid| {
                let entries = leaf.subject_name().entries_by_nid(nid);
                let texts = entries.map(|entry| entry.data().to_string().unwrap());
                texts.collect::<Vec<_>>()
            };
            assert_eq!(names(Nid::COMMONNAME).concat(), identity.name);
            assert_eq!(
                names(Nid::ORGANIZATIONALUNITNAME),
                identity.organizational_units
            );
            let alternatives = leaf.subject_alt_names().unwrap();
            let dns: Vec<_> = alternatives
                .iter()
                .filter_map(|name| name.dnsname())
                .collect();
            let ips: Vec<_> = alternatives
                .iter()
                .filter_map(|name| name.ipaddress())
                .collect();
            assert_eq!(dns, [identity.name.as_str()]);
            assert_eq!(ips.iter().map(|ip| ip.len()).collect::<Vec<_>>(), [4, 16]);
            let key = String::from_utf8(issued.key.clone()).unwrap();
            assert!(key.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
            let key = PKey::private_key_from_pem(&issued.key).unwrap();
            assert_eq!(key.bits(), KEY_BITS);
            assert!(key.public_eq(&leaf.public_key().unwrap()));
            let left = Asn1Time::days_from_now(0)
                .unwrap()
                .diff(leaf.not_after())
                .unwrap();
            assert!(
                left.days == 1 || (left.days == 0 && left.secs > 86_000),
                "{left:?}"
            );
        }
    }

    #[test]
    fn renewal_is_before_the_end() {
        let key = key();
        let after = |secs| {
            authority(&key, Duration::from_secs(secs))
                .unwrap()
                .renewal()
                .as_secs()
        };
        assert_eq!(after(86_400), 84_600);
        assert_eq!(after(14_400), 12_600);
        assert_eq!(after(80), 70);
        assert!(matches!(
            authority(&key, Duration::from_secs(4)),
            Err(AuthorityError::Validity)
        ));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let ours = key();
        let authority = authority(&ours, DAY).unwrap();
        let pem = authority.certificate.to_pem().unwrap();
        let other = key().private_key_to_pem_pkcs8().unwrap();
        let of = |certificate: &[u8], key: &[u8]| Authority::new(certificate, key, DAY);
        assert!(matches!(of(&pem, &other), Err(AuthorityError::Mismatch)));
        assert!(matches!(
            of(b"", &other),
            Err(AuthorityError::Certificate(_))
        ));
        assert!(matches!(of(&pem, b"no key"), Err(AuthorityError::Key(_))));
        assert!(!format!("{authority:?}").contains("PRIVATE"));
    }
}
