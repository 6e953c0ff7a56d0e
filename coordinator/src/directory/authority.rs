//! The coordinator's own certificate authority: one CA, one server certificate, client certificates.

use super::DirectoryError;
use crate::tls::BadPair;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::UnixTime;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long a certificate is valid.
const VALID: Duration = Duration::from_secs(10 * YEAR.as_secs());
/// Certificates are good from a day ago, so that a client whose clock is behind accepts them.
const CLOCK_SKEW: Duration = DAY;
/// A certificate with less left than this is made anew at the next start.
pub(super) const RENEW_BEFORE_END: Duration = Duration::from_secs(30 * DAY.as_secs());

/// A certificate and its key, both PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Signs certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

fn failed(subject: &str) -> impl Fn(rcgen::Error) -> DirectoryError {
    move |error| DirectoryError::Certificate { subject: subject.to_owned(), what: error.to_string() }
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N], DirectoryError> {
    let mut bytes = [0; N];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).map_err(|error| DirectoryError::Certificate {
        subject: "this coordinator".into(),
        what: format!("the system gives no random bytes ({error})"),
    })?;
    Ok(bytes)
}

fn dated(params: &mut CertificateParams, subject: &str, now: UnixTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now.as_secs());
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + (now + VALID);
    params.distinguished_name.push(DnType::CommonName, subject);
}

/// Makes a CA.
pub(super) fn create(now: UnixTime) -> Result<Pair, DirectoryError> {
    // A name of its own: whoever mixes up two clusters is told "unknown issuer", not "bad signature".
    let subject = format!("Kiln CA {:016x}", u64::from_le_bytes(random()?));
    let failed = failed(&subject);
    let key = KeyPair::generate().map_err(&failed)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(&failed)?;
    dated(&mut params, &subject, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(&failed)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

impl Authority {
    /// The authority of this pair.
    ///
    /// # Errors
    /// What is wrong with the key or the certificate.
    pub(super) fn load(pair: &Pair) -> Result<Self, BadPair> {
        let key = KeyPair::from_pem(&pair.key).map_err(|error| BadPair::Key(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key)
            .map_err(|error| BadPair::Certificate(error.to_string()))?;
        Ok(Self { issuer })
    }

    /// A certificate for the coordinator, valid for these host names and IP addresses.
    pub(super) fn issue_server(&self, names: &[String], now: UnixTime) -> Result<Pair, DirectoryError> {
        self.issue("Kiln coordinator", names, ExtendedKeyUsagePurpose::ServerAuth, now)
    }

    /// A certificate for whoever attaches.
    pub(super) fn issue_client(&self, now: UnixTime) -> Result<Pair, DirectoryError> {
        self.issue("Kiln client", &[], ExtendedKeyUsagePurpose::ClientAuth, now)
    }

    fn issue(
        &self,
        subject: &str,
        names: &[String],
        purpose: ExtendedKeyUsagePurpose,
        now: UnixTime,
    ) -> Result<Pair, DirectoryError> {
        let failed = failed(subject);
        let key = KeyPair::generate().map_err(&failed)?;
        let mut params = CertificateParams::new(names).map_err(&failed)?;
        dated(&mut params, subject, now);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer).map_err(&failed)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
