//! Ids and secrets, in the formats orra's clients know (22 digits of base 57, 28 letters, 64 hex digits).
//!
//! Invariant: what is random comes in by [`Chance`]; a derived id is a function of its parts alone.

use std::fmt;

use crate::seams::Chance;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use orchestrion_history::ids::{Namespace, RunId};
use sha2::{Digest, Sha256};

/// Digits and letters without the look-alikes 0, 1, I, O and l.
const BASE57: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// 57^22 is just above 2^128.
const BASE57_DIGITS: usize = 22;
/// 26^28 is just above 2^131.
const SERVICE_LETTERS: usize = 28;

/// What every API key begins with.
pub const API_KEY_PREFIX: &str = "sk-orra-v1-";
/// What every webhook secret begins with (Standard Webhooks).
pub const WEBHOOK_SECRET_PREFIX: &str = "whsec_";

/// A key of a project, as its owner sees it, once.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A new one.
    pub fn generate(source: &dyn Chance) -> Self {
        let mut bytes = [0u8; 32];
        source.fill(&mut bytes);
        Self(format!("{API_KEY_PREFIX}{}", hex(&bytes)))
    }

    /// The text, to be shown to its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(&self.0)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// SHA-256 of an API key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    /// Of any text a caller sends as a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// As the key table names it.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({}..)", hex(&self.0[..4]))
    }
}

/// Signs the deliveries to one webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// A new one of 32 bytes.
    pub fn generate(source: &dyn Chance) -> Self {
        let mut bytes = vec![0u8; 32];
        source.fill(&mut bytes);
        Self(bytes)
    }

    /// One that is known.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Reads what [`Self::reveal`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.trim().strip_prefix(WEBHOOK_SECRET_PREFIX)?;
        let bytes = BASE64.decode(encoded).ok()?;
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// What signs.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, to be shown to its owner once.
    pub fn reveal(&self) -> String {
        format!("{WEBHOOK_SECRET_PREFIX}{}", BASE64.encode(&self.0))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

/// `p_` and 22 digits.
pub fn project_id(source: &dyn Chance) -> String {
    format!("p_{}", base57(random(source)))
}

/// `o_` and 22 digits.
pub fn orchestration_id(source: &dyn Chance) -> String {
    format!("o_{}", base57(random(source)))
}

/// The id of the orchestration that a project starts with an idempotency key: the same key finds the same one.
pub fn keyed_orchestration_id(project: &str, idempotency_key: &str) -> String {
    format!(
        "o_{}",
        derived(
            "orchestration",
            &[project.as_bytes(), idempotency_key.as_bytes()]
        )
    )
}

/// `w_` and 22 digits.
pub fn webhook_id(source: &dyn Chance) -> String {
    format!("w_{}", base57(random(source)))
}

/// The public id of an API key, `k_` and 22 digits: it names the key and opens nothing.
pub fn api_key_id(digest: KeyDigest) -> String {
    format!("k_{}", derived("api key", &[&digest.0]))
}

/// `s_` and 28 lower-case letters: models change the case of what they copy.
pub fn service_id(source: &dyn Chance) -> String {
    letters(random(source))
}

/// The id of a service that comes by its name alone, in the same form.
pub fn named_service_id(project: &Namespace, name: &str) -> String {
    let parts = [project.as_str().as_bytes(), name.as_bytes()];
    let mut first = [0u8; 16];
    first.copy_from_slice(&digest("service", &parts)[..16]);
    letters(u128::from_be_bytes(first))
}

fn letters(mut value: u128) -> String {
    let mut letters = [b'a'; SERVICE_LETTERS];
    for letter in letters.iter_mut().rev() {
        *letter = b'a' + (value % 26) as u8;
        value /= 26;
    }
    format!("s_{}", String::from_utf8_lossy(&letters))
}

/// The id of one attempt as a service sees it: the same attempt sent again has the same.
pub fn execution_id(run_id: RunId, scheduled_event_id: i64, attempt: i32, revert: bool) -> String {
    let parts: [&[u8]; 3] = [
        &run_id.0,
        &scheduled_event_id.to_be_bytes(),
        &attempt.to_be_bytes(),
    ];
    let prefix = if revert { "e_comp_" } else { "e_" };
    format!("{prefix}{}", derived("execution", &parts))
}

/// A run id: a random UUID.
pub fn run_id(source: &dyn Chance) -> RunId {
    let mut bytes = [0u8; 16];
    source.fill(&mut bytes);
    // Version 4, the variant of RFC 9562.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    RunId(bytes)
}

/// 22 digits that depend on the domain and all parts, and on where one part ends and the next begins.
pub fn derived(domain: &str, parts: &[&[u8]]) -> String {
    let mut first = [0u8; 16];
    first.copy_from_slice(&digest(domain, parts)[..16]);
    base57(u128::from_be_bytes(first))
}

/// SHA-256 over the domain and all parts, each with its length.
pub fn digest(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in std::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
}

fn random(source: &dyn Chance) -> u128 {
    let mut bytes = [0u8; 16];
    source.fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

fn base57(mut value: u128) -> String {
    let mut digits = [BASE57[0]; BASE57_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE57[(value % 57) as usize];
        value /= 57;
    }
    String::from_utf8_lossy(&digits).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::seams::SystemChance;

    /// Counts: unlike ids, the same in every run of a test.
    #[derive(Default)]
    pub(crate) struct CountingIds(AtomicU64);

    impl Chance for CountingIds {
        fn fill(&self, bytes: &mut [u8]) {
            let seed = self.0.fetch_add(1, Ordering::Relaxed);
            let stream = digest("test", &[&seed.to_be_bytes()]);
            for (byte, value) in bytes.iter_mut().zip(stream.iter().cycle()) {
                *byte = *value;
            }
        }
    }

    fn has_form(id: &str, prefix: &str, len: usize, alphabet: &[u8]) -> bool {
        id.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == len && rest.bytes().all(|b| alphabet.contains(&b)))
    }

    #[test]
    fn ids_have_the_forms_that_clients_know() {
        let letters: Vec<u8> = (b'a'..=b'z').collect();
        for _ in 0..200 {
            assert!(has_form(&project_id(&SystemChance), "p_", 22, BASE57));
            assert!(has_form(&orchestration_id(&SystemChance), "o_", 22, BASE57));
            assert!(has_form(&webhook_id(&SystemChance), "w_", 22, BASE57));
            assert!(has_form(&service_id(&SystemChance), "s_", 28, &letters));
            assert!(has_form(
                ApiKey::generate(&SystemChance).reveal(),
                "sk-orra-v1-",
                64,
                b"0123456789abcdef"
            ));
        }
        let run = RunId([9; 16]);
        assert!(has_form(&execution_id(run, 5, 1, false), "e_", 22, BASE57));
        assert!(has_form(
            &execution_id(run, 5, 1, true),
            "e_comp_",
            22,
            BASE57
        ));
    }

    #[test]
    fn the_largest_values_fit() {
        assert_eq!(base57(0), "2".repeat(22));
        assert_eq!(base57(u128::MAX).len(), 22);
        assert_ne!(base57(u128::MAX), base57(u128::MAX - 1));
        struct Ones;
        impl Chance for Ones {
            fn fill(&self, bytes: &mut [u8]) {
                bytes.fill(0xff);
            }
        }
        assert_eq!(service_id(&Ones).len(), 30);
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(
            orchestration_id(&SystemChance),
            orchestration_id(&SystemChance)
        );
        assert_ne!(
            ApiKey::generate(&SystemChance),
            ApiKey::generate(&SystemChance)
        );
    }

    #[test]
    fn an_attempt_sent_again_keeps_its_id_and_another_has_another() {
        let run = RunId([1; 16]);
        assert_eq!(
            execution_id(run, 5, 1, false),
            execution_id(run, 5, 1, false)
        );
        assert_ne!(
            execution_id(run, 5, 1, false),
            execution_id(run, 5, 2, false)
        );
        assert_ne!(
            execution_id(run, 5, 1, false),
            execution_id(run, 6, 1, false)
        );
        assert_ne!(
            execution_id(run, 5, 1, false),
            execution_id(RunId([2; 16]), 5, 1, false)
        );
    }

    #[test]
    fn derived_ids_know_where_their_parts_end() {
        assert_ne!(
            keyed_orchestration_id("p_1", "2x"),
            keyed_orchestration_id("p_12", "x")
        );
        assert_eq!(
            keyed_orchestration_id("p_1", "k"),
            keyed_orchestration_id("p_1", "k")
        );
    }

    #[test]
    fn a_run_id_is_a_version_4_uuid() {
        let text = run_id(&SystemChance).to_string();
        assert_eq!(text.as_bytes()[14], b'4');
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(RunId::parse(&text).map(|id| id.to_string()), Some(text));
    }

    #[test]
    fn a_secret_is_read_as_it_is_shown() {
        let secret = WebhookSecret::generate(&SystemChance);
        assert_eq!(WebhookSecret::parse(&secret.reveal()), Some(secret));
        for none in ["", "whsec_", "whsec_!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert_eq!(WebhookSecret::parse(none), None, "{none}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = ApiKey::generate(&SystemChance);
        assert!(!format!("{key:?}").contains(&key.reveal()[11..]));
        let secret = WebhookSecret(vec![7; 32]);
        assert_eq!(format!("{secret:?}"), "WebhookSecret(..)");
        assert_eq!(
            secret.reveal(),
            "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
        );
    }
}
