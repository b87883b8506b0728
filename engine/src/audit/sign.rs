//! The key that signs exports: made at the first start, kept in the data folder.
//!
//! Invariant: the secret half leaves this file only to the disk; it is in no log line and no answer.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::registry::ids::{digest, hex};
use crate::seams::Chance;

/// The key's file within the data folder.
pub const KEY_FILE: &str = "audit.key";
const SIGNATURE_DOMAIN: &[u8] = b"orchestrion.audit.signature.v1\0";
const SALT_DOMAIN: &str = "orchestrion.audit.salt.v1";
/// Bytes of a salt.
const SALT_BYTES: usize = 16;

/// Signs. Clones share it.
#[derive(Clone)]
pub struct AuditKey(Arc<SigningKey>);

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({})", self.public())
    }
}

impl AuditKey {
    /// Of 32 secret bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Arc::new(SigningKey::from_bytes(&seed)))
    }

    /// The key of a data folder; the first time it makes one.
    pub fn of_folder(folder: &Path, chance: &dyn Chance) -> std::io::Result<Self> {
        let path = folder.join(KEY_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => bytes_of(text.trim()).map(Self::from_seed).ok_or_else(|| {
                std::io::Error::other(format!(
                    "{} holds no key of 64 hex digits: put the file back from a backup, or move it away and a new key is made",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut seed = [0u8; 32];
                chance.fill(&mut seed);
                write(folder, &path, &seed)?;
                Ok(Self::from_seed(seed))
            }
            Err(error) => Err(error),
        }
    }

    /// The public half, hex.
    pub fn public(&self) -> String {
        hex(self.0.verifying_key().as_bytes())
    }

    /// The signature of a digest, hex.
    pub fn sign(&self, digest: &str) -> String {
        hex(&self.0.sign(&message(digest)).to_bytes())
    }

    /// Bytes that depend on all parts and that nobody without the key can compute, hex.
    pub fn salt(&self, parts: &[&str]) -> String {
        let secret = digest(SALT_DOMAIN, &[self.0.as_bytes()]);
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("a key of any length will do");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        hex(&mac.finalize().into_bytes()[..SALT_BYTES])
    }
}

/// Whole or not at all: a start that is cut off leaves no half a key.
fn write(folder: &Path, path: &Path, seed: &[u8; 32]) -> std::io::Result<()> {
    let draft = path.with_extension("key.new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(format!("{}\n", hex(seed)).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Checks signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.0.as_bytes()))
    }
}

impl PublicKey {
    /// Of 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        VerifyingKey::from_bytes(&bytes_of(text)?).ok().map(Self)
    }

    /// Whether a signature is this key's over this digest.
    pub fn verifies(&self, digest: &str, signature: &str) -> bool {
        let Some(bytes) = bytes_of::<64>(signature) else {
            return false;
        };
        self.0
            .verify_strict(&message(digest), &Signature::from_bytes(&bytes))
            .is_ok()
    }
}

fn message(digest: &str) -> Vec<u8> {
    [SIGNATURE_DOMAIN, digest.as_bytes()].concat()
}

/// Lower-case hex of exactly so many bytes.
fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::seams::SystemChance;

    #[test]
    fn a_folder_keeps_its_key_to_itself() {
        let folder = tempfile::tempdir().unwrap();
        let first = AuditKey::of_folder(folder.path(), &SystemChance).unwrap();
        let again = AuditKey::of_folder(folder.path(), &SystemChance).unwrap();
        assert_eq!(first.public(), again.public());
        let path = folder.path().join(KEY_FILE);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "half a ke").unwrap();
        let error = AuditKey::of_folder(folder.path(), &SystemChance).unwrap_err();
        assert!(error.to_string().contains("backup"), "{error}");
        assert!(!format!("{first:?}").contains(&hex(first.0.as_bytes())));
    }

    #[test]
    fn only_the_signer_of_just_this_digest_verifies() {
        let key = AuditKey::from_seed([7; 32]);
        let public = PublicKey::parse(&key.public()).unwrap();
        let signature = key.sign("d1");
        assert!(public.verifies("d1", &signature));
        assert!(!public.verifies("d2", &signature));
        assert!(!public.verifies("d1", &signature.to_uppercase()));
        assert!(!public.verifies("d1", ""));
        let other = AuditKey::from_seed([8; 32]);
        assert!(!public.verifies("d1", &other.sign("d1")));
        assert_eq!(PublicKey::parse("xyz"), None);
    }
}
