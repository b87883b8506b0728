//! Signatures of deliveries, as Standard Webhooks has them: HMAC-SHA-256 over `id.timestamp.body`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::registry::ids::WebhookSecret;

/// The `webhook-signature` header of a delivery: a signature by each secret that counts now, the newest first.
pub fn signatures<'a>(
    secrets: impl Iterator<Item = &'a WebhookSecret>,
    id: &str,
    unix_seconds: i64,
    body: &str,
) -> String {
    let signed: Vec<String> = secrets
        .map(|secret| signature(secret, id, unix_seconds, body))
        .collect();
    signed.join(" ")
}

/// Whether one of the signatures in a `webhook-signature` header is by the secret. The time it takes does not tell how far it matched.
pub fn is_signed_by(
    secret: &WebhookSecret,
    header: &str,
    id: &str,
    unix_seconds: i64,
    body: &str,
) -> bool {
    let mut mac = mac_of(secret);
    update(&mut mac, id, unix_seconds, body);
    header
        .split(' ')
        .filter_map(|one| BASE64.decode(one.strip_prefix("v1,")?).ok())
        .any(|code| mac.clone().verify_slice(&code).is_ok())
}

/// One signature of a delivery.
pub fn signature(secret: &WebhookSecret, id: &str, unix_seconds: i64, body: &str) -> String {
    let mut mac = mac_of(secret);
    update(&mut mac, id, unix_seconds, body);
    format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
}

fn mac_of(secret: &WebhookSecret) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("an HMAC key may have any length")
}

fn update(mac: &mut Hmac<Sha256>, id: &str, unix_seconds: i64, body: &str) {
    for part in [id, ".", &unix_seconds.to_string(), ".", body] {
        mac.update(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hmac` and `base64`.
    #[test]
    fn a_known_signature() {
        let secret =
            WebhookSecret::from_bytes(BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let body = r#"{"test": 2432232314}"#;
        assert_eq!(
            signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_receiver_with_either_secret_is_satisfied() {
        let secret = |byte| WebhookSecret::from_bytes(vec![byte; 32]);
        let both = [secret(1), secret(2)];
        let header = signatures(both.iter(), "e_1", 5, "{}");
        assert_eq!(header.split(' ').count(), 2);
        for known in &both {
            assert!(is_signed_by(known, &header, "e_1", 5, "{}"));
            assert!(!is_signed_by(known, &header, "e_2", 5, "{}"));
            assert!(!is_signed_by(known, &header, "e_1", 6, "{}"));
            assert!(!is_signed_by(known, &header, "e_1", 5, "{ }"));
        }
        assert!(!is_signed_by(&secret(3), &header, "e_1", 5, "{}"));
        for nonsense in [
            "",
            "v1",
            "v1,",
            "v1,!!",
            "v2,AAAA",
            &header.replace("v1", "v0"),
        ] {
            assert!(
                !is_signed_by(&both[0], nonsense, "e_1", 5, "{}"),
                "{nonsense}"
            );
        }
    }
}
