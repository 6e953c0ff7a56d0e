//! Who this coordinator is to others: its CA, its own certificate, and the profile for those who attach.

use super::authority::{self, Authority, Pair, RENEW_BEFORE_END};
use super::{CA_CERTIFICATE, CA_KEY, Directory, DirectoryError, EPOCH, SERVER_CERTIFICATE, SERVER_KEY, epoch, file};
use crate::tls::{self, BadPair, Chain};
use kiln_protocol::Profile;
use rustls::{CertificateError, Error as TlsError};
use rustls_pki_types::UnixTime;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CA_ADVICE: &str = "restore both ca.pem and ca.key from a backup, or remove ca.*, server.* and the profile to begin with a \
     new CA (no existing profile is accepted after that)";
const SERVER_ADVICE: &str = "remove server.pem and server.key to have them made anew";
/// Names that the server's certificate always covers.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The coordinator's CA and certificate, loaded and checked against each other.
pub struct Identity {
    authority: Authority,
    pub(crate) ca: Chain,
    pub(crate) server: Chain,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Directory {
    /// Loads the CA and the server's certificate; makes what is not there yet. `host` is the name or IP address that
    /// clients use; the certificate is made anew when it does not cover it, or ends soon.
    ///
    /// # Errors
    /// When files are incomplete, do not fit together, are open to others, or cannot be written.
    pub fn identity(&self, host: &str, now: UnixTime) -> Result<Identity, DirectoryError> {
        let ca_paths = (self.file(CA_CERTIFICATE), self.file(CA_KEY));
        let server_paths = (self.file(SERVER_CERTIFICATE), self.file(SERVER_KEY));
        let ca_pair = match read_pair(&ca_paths.0, &ca_paths.1, CA_ADVICE)? {
            Some(pair) => pair,
            None => {
                if let Some(orphan) = [&server_paths.0, &server_paths.1].into_iter().find(|path| path.exists()) {
                    return Err(DirectoryError::Missing {
                        path: ca_paths.0,
                        beside: orphan.clone(),
                        advice: CA_ADVICE,
                    });
                }
                // Before the CA: a directory with a CA but without an epoch has lost it.
                epoch::create(&self.file(EPOCH))?;
                let pair = authority::create(now)?;
                write_pair(&ca_paths.0, &ca_paths.1, &pair)?;
                pair
            }
        };
        let bad_ca = |bad| corrupt(&ca_paths, &bad, CA_ADVICE);
        let authority = Authority::load(&ca_pair).map_err(bad_ca)?;
        let ca = tls::chain(&ca_pair.certificate, &ca_pair.key).map_err(bad_ca)?;

        let bad_server = |bad| corrupt(&server_paths, &bad, SERVER_ADVICE);
        let names = names(host);
        let server = read_pair(&server_paths.0, &server_paths.1, SERVER_ADVICE)?;
        let server = match server {
            Some(pair) => {
                let chain = tls::chain(&pair.certificate, &pair.key).map_err(bad_server)?;
                let good = covers(&ca, &chain, &names, now).map_err(|what| DirectoryError::Corrupt {
                    path: server_paths.0.clone(),
                    what,
                    advice: SERVER_ADVICE,
                })?;
                good.then_some(chain)
            }
            None => None,
        };
        let server = match server {
            Some(chain) => chain,
            None => {
                let pair = authority.issue_server(&names, now)?;
                write_pair(&server_paths.0, &server_paths.1, &pair)?;
                tls::chain(&pair.certificate, &pair.key).map_err(bad_server)?
            }
        };
        Ok(Identity { authority, ca, server })
    }

    /// Writes the client profile to `path`, unless it is there already as it should be. Credentials of a profile that
    /// still hold are kept, so that copies of it stay good when only the address changes.
    ///
    /// # Errors
    /// When the file cannot be written, is open to others, or is somebody else's.
    pub fn write_profile(
        &self,
        path: &Path,
        identity: &Identity,
        address: &str,
        host: &str,
        now: UnixTime,
    ) -> Result<Profile, DirectoryError> {
        let text = file::read_private(path)?;
        let old = text.as_deref().map(Profile::parse);
        // In our own directory whatever is there is ours; elsewhere it may be another cluster's credentials.
        if path != self.profile_path() {
            let what = match &old {
                Some(Err(error)) => Some(error.to_string()),
                Some(Ok(profile)) if profile.ca != identity.ca.pem => Some("its CA is another one".to_owned()),
                Some(Ok(_)) | None => None,
            };
            if let Some(what) = what {
                return Err(DirectoryError::ForeignProfile { path: path.to_owned(), what });
            }
        }
        let old = old.and_then(Result::ok).filter(|profile| still_good(profile, identity, now));
        let (certificate, key) = match &old {
            Some(profile) => (profile.certificate.clone(), profile.key.clone()),
            None => {
                let pair = identity.authority.issue_client(now)?;
                (pair.certificate, pair.key)
            }
        };
        let profile = Profile {
            address: address.to_owned(),
            server_name: host.to_owned(),
            ca: identity.ca.pem.clone(),
            certificate,
            key,
        };
        if old.as_ref() != Some(&profile) {
            file::write(path, &profile.print())?;
        }
        Ok(profile)
    }
}

/// Names the file that is to blame; of two that do not belong together, the certificate.
fn corrupt((certificate, key): &(PathBuf, PathBuf), bad: &BadPair, advice: &'static str) -> DirectoryError {
    let path = match bad {
        BadPair::Key(_) => key,
        BadPair::Certificate(_) | BadPair::Mismatch(_) => certificate,
    };
    DirectoryError::Corrupt { path: path.clone(), what: bad.to_string(), advice }
}

fn names(host: &str) -> Vec<String> {
    let mut names: Vec<String> = LOCAL_NAMES.map(str::to_owned).into();
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    names
}

fn later(now: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + RENEW_BEFORE_END)
}

/// Whether the server's certificate can be used on: signed by the CA (else an error), for all names, and for a while.
fn covers(ca: &Chain, server: &Chain, names: &[String], now: UnixTime) -> Result<bool, String> {
    let verifier = tls::server_verifier(ca)?;
    for name in names {
        match tls::verify_server(&verifier, server, name, later(now)) {
            Ok(()) => {}
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. }
                | CertificateError::Expired
                | CertificateError::ExpiredContext { .. },
            )) => return Ok(false),
            Err(error) => return Err(format!("ca.pem does not vouch for it ({error})")),
        }
    }
    Ok(true)
}

fn still_good(profile: &Profile, identity: &Identity, now: UnixTime) -> bool {
    let Ok(chain) = tls::chain(&profile.certificate, &profile.key) else {
        return false;
    };
    let Ok(verifier) = tls::client_verifier(&identity.ca) else {
        return false;
    };
    profile.ca == identity.ca.pem && verifier.verify_client_cert(&chain.certificate, &[], later(now)).is_ok()
}

/// Both files, or neither; one without the other is an error.
fn read_pair(certificate: &Path, key: &Path, advice: &'static str) -> Result<Option<Pair>, DirectoryError> {
    let missing = |path: &Path, beside: &Path| DirectoryError::Missing {
        path: path.to_owned(),
        beside: beside.to_owned(),
        advice,
    };
    match (file::read(certificate)?, file::read_private(key)?) {
        (Some(certificate), Some(key)) => Ok(Some(Pair { certificate, key })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(missing(certificate, key)),
        (Some(_), None) => Err(missing(key, certificate)),
    }
}

fn write_pair(certificate: &Path, key: &Path, pair: &Pair) -> Result<(), DirectoryError> {
    file::write(key, &pair.key)?;
    file::write(certificate, &pair.certificate)
}
