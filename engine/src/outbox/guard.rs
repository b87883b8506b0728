//! Which addresses deliveries may go to. A webhook's URL is a caller's word: without this, whoever may name one could have the engine
//! ask what only the engine's machine can reach (loopback, the local network, a cloud's metadata service).
//!
//! ```text
//!  the text of a URL: an address, or localhost --> refused when it is added, and again at each try
//!  a name --> resolved for this connection --> what is not public is left out --> connected to what is left
//! ```
//!
//! Invariant: the addresses that are checked are the ones that are connected to: a name that resolves otherwise a moment later gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// What a cloud's machines ask their host at, on an address that looks public.
const PUBLIC_BUT_INTERNAL: [Ipv4Addr; 1] = [Ipv4Addr::new(168, 63, 129, 16)];

/// Whether an address is one of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        // Shared by providers (RFC 6598), protocol assignments, benchmarks, reserved.
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18)
        || a >= 240;
    !special && !PUBLIC_BUT_INTERNAL.contains(&address)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = carried_v4(address) {
        return is_public_v4(inner);
    }
    // Only global unicast is public; within it, what is set aside for other uses is not.
    let [a, b, ..] = address.segments();
    let global = a & 0xe000 == 0x2000;
    let set_aside = (a == 0x2001 && (b < 0x0200 || b == 0x0db8)) || a == 0x3fff;
    global && !set_aside
}

/// The IPv4 address that an IPv6 address leads to.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        // Mapped, translated by NAT64, and the old compatible form; :: and ::1 are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(v4(high, low))
        }
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        // 6to4
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// Why a URL cannot be delivered to, as far as its text tells.
pub fn refusal(url: &Url) -> Option<String> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = bare.trim_end_matches('.');
    let inside = match bare.parse::<IpAddr>() {
        Ok(address) => !is_public(address),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    };
    inside.then(|| {
        format!(
            "{host} is not a public address: this server delivers to those only, unless its setting outbox.allow_private says otherwise"
        )
    })
}

/// Resolves names to public addresses only.
#[derive(Debug, Default)]
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let public = only_public(&name, found)?;
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

impl PublicOnly {
    pub(super) fn shared() -> Arc<Self> {
        Arc::new(Self)
    }
}

fn only_public(name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, std::io::Error> {
    let public: Vec<SocketAddr> = found
        .into_iter()
        .filter(|address| is_public(address.ip()))
        .collect();
    if public.is_empty() {
        return Err(std::io::Error::other(format!(
            "{name} has no public address: this server delivers to those only, unless its setting outbox.allow_private says otherwise"
        )));
    }
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_is_not_public() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "2002:808:808::1",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn every_way_to_write_an_address_is_read() {
        for inside in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://017700000001/",
            "http://127.0.0.1./",
            "http://[::1]:80/",
            "http://[::ffff:7f00:1]/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost:81/",
            "http://169.254.169.254/latest/meta-data",
            "http://user:pass@10.0.0.1/",
            "http://①②⑦.0.0.1/",
        ] {
            let url = Url::parse(inside).unwrap();
            let reason = refusal(&url).unwrap_or_else(|| panic!("{inside} is let through"));
            assert!(!reason.contains("pass"), "{reason}");
        }
        for outside in [
            "http://example.com/",
            "https://8.8.8.8/x",
            "http://localhost.example/",
            "http://127.0.0.1.example/",
        ] {
            assert_eq!(refusal(&Url::parse(outside).unwrap()), None, "{outside}");
        }
    }

    #[test]
    fn of_a_names_addresses_only_the_public_ones_are_left() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts
                .iter()
                .map(|text| SocketAddr::new(text.parse().unwrap(), 0))
                .collect()
        };
        let found = addresses(&["10.0.0.1", "8.8.8.8", "::1"]);
        assert_eq!(
            only_public("both.example", found).unwrap(),
            addresses(&["8.8.8.8"])
        );
        let error = only_public("rebound.example", addresses(&["127.0.0.1"])).unwrap_err();
        assert!(
            error.to_string().contains("outbox.allow_private"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_name_of_this_machine_does_not_resolve() {
        let resolved = PublicOnly.resolve("localhost".parse().unwrap()).await;
        assert!(resolved.is_err());
    }
}
