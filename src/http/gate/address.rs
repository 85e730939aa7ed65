//! Where a request came from: the peer's address, or what a trusted proxy says of it.
//!
//! A header that says so can be written by anybody. It is read only where the peer is a trusted proxy, and only from its
//! right end: what the proxies themselves appended. Everything to the left of the first address that is no trusted proxy's
//! is the client's own invention and is not looked at.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

/// No honest chain of proxies is longer.
const MAX_HOPS: usize = 16;

/// Whose word is taken for where a request came from, and in which header they give it.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    nets: Vec<IpNet>,
    header: Forwarded,
}

/// The header that the proxies write. Only one is read: a proxy passes the other one on as the client sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Forwarded {
    /// `X-Forwarded-For: client, proxy`
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239)
    Standard,
}

impl Proxies {
    /// Reads addresses and ranges like `10.0.0.0/8`, and the header's name; an error is a sentence.
    pub fn parse(ranges: &[String], header: Option<&str>) -> Result<Self, String> {
        let nets = ranges.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).map(parse_range);
        let nets = nets.collect::<Result<_, _>>()?;
        let header = match header.map(str::to_ascii_lowercase).as_deref() {
            None | Some("x-forwarded-for") => Forwarded::XForwardedFor,
            Some("forwarded") => Forwarded::Standard,
            Some(other) => {
                return Err(format!(
                    "--forwarded-header is x-forwarded-for or forwarded, not {:?}",
                    short(other)
                ));
            }
        };
        Ok(Self { nets, header })
    }

    /// Whether none is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }

    /// Whether an address is a trusted proxy's.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&address.to_canonical()))
    }

    /// The address that a request is counted for. None = for none: the peer is not known, or it is a program of this very
    /// machine that no proxy stands for.
    #[must_use]
    pub fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer?.to_canonical();
        if !self.trusts(peer) {
            return (!peer.is_loopback()).then_some(peer);
        }
        // Where the chain breaks off, the last proxy that spoke is all that is known.
        let mut known = peer;
        for hop in self.hops(headers).into_iter().rev().take(MAX_HOPS) {
            let Some(address) = hop else { break };
            known = address;
            if !self.trusts(address) {
                break;
            }
        }
        Some(known)
    }

    /// The hops as they are written; None for one that is no address.
    fn hops(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        let (name, read): (HeaderName, fn(&str) -> Option<IpAddr>) = match self.header {
            Forwarded::XForwardedFor => (HeaderName::from_static("x-forwarded-for"), parse_hop),
            Forwarded::Standard => (header::FORWARDED, parse_forwarded),
        };
        let lines = headers.get_all(name).into_iter();
        let hops = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        hops.map(|hop| std::str::from_utf8(hop).ok().and_then(read)).collect()
    }
}

/// A range, or one address.
fn parse_range(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        format!(
            "--trusted-proxies: {:?} is no address and no range; give them like 10.0.0.0/8,fd00::/8",
            short(text)
        )
    })?;
    if net.prefix_len() == 0 {
        return Err(format!(
            "--trusted-proxies: {text} is everybody, who could then claim to come from anywhere"
        ));
    }
    Ok(net.trunc())
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]:4711`
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, port) = rest.split_once(']')?;
            let port_is_one = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            inside.parse::<Ipv6Addr>().ok().filter(|_| port_is_one).map(IpAddr::from)
        }
        None => text.parse().ok().or_else(|| {
            let (address, port) = text.rsplit_once(':')?;
            address.parse::<std::net::Ipv4Addr>().ok().filter(|_| is_port(port)).map(IpAddr::from)
        }),
    };
    address.map(|address| address.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// `for="[2001:db8::1]:4711";proto=https`
fn parse_forwarded(element: &str) -> Option<IpAddr> {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    parse_hop(value.trim_matches('"'))
}

/// What is counted as one: a household or a host gets a whole /64 of IPv6.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Garbage is told back, but not all of it.
pub(super) fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies(header: &str) -> Proxies {
        let ranges = ["10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1"].map(ToOwned::to_owned);
        Proxies::parse(&ranges, Some(header)).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(proxies: &Proxies, peer: &str, name: &'static str, lines: &[&str]) -> Option<IpAddr> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        proxies.client(Some(ip(peer)), &headers)
    }

    #[test]
    fn a_peer_that_is_no_proxy_is_who_it_is_whatever_it_says() {
        for line in ["203.0.113.9", "10.0.0.1", "127.0.0.1", "garbage", ""] {
            let found = client(&proxies("x-forwarded-for"), "198.51.100.7", "x-forwarded-for", &[line]);
            assert_eq!(found, Some(ip("198.51.100.7")), "{line}");
            let found = client(&Proxies::default(), "10.0.0.1", "x-forwarded-for", &[line]);
            assert_eq!(found, Some(ip("10.0.0.1")), "{line}");
        }
    }

    #[test]
    fn behind_proxies_the_rightmost_that_is_none_is_the_client() {
        for (lines, expected) in [
            (&["203.0.113.9"] as &[&str], "203.0.113.9"),
            (&["203.0.113.9:50000"], "203.0.113.9"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]:50000"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
            (&["1.2.3.4, 203.0.113.9"], "203.0.113.9"),
            (&["1.2.3.4,203.0.113.9 , 10.9.9.9,2001:db8:ffff::7"], "203.0.113.9"),
            (&["1.2.3.4", "203.0.113.9", "10.9.9.9"], "203.0.113.9"),
            // Nobody but proxies: the leftmost of them asked.
            (&["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
            // What is no address ends the chain.
            (&["203.0.113.9, unknown"], "10.0.0.1"),
            (&["203.0.113.9, , 10.0.0.8"], "10.0.0.8"),
            (&["203.0.113.9:99999"], "10.0.0.1"),
            (&["fe80::1%eth0"], "10.0.0.1"),
            (&["[203.0.113.9]"], "10.0.0.1"),
            (&["203.0.113.009"], "10.0.0.1"),
            (&["'; DROP TABLE events"], "10.0.0.1"),
            (&["\u{7f}", "é"], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| line.replace('\u{7f}', "x")).collect();
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let found = client(&proxies("x-forwarded-for"), "10.0.0.1", "x-forwarded-for", &lines);
            assert_eq!(found, Some(ip(expected)), "{lines:?}");
        }
    }

    #[test]
    fn a_hundred_hops_and_eight_kilobytes_are_read_to_the_first_that_counts() {
        let forged = vec!["1.2.3.4"; 100].join(",") + ",203.0.113.9";
        let long = "1".repeat(8 << 10) + ",203.0.113.9";
        for line in [forged.as_str(), long.as_str()] {
            let found = client(&proxies("x-forwarded-for"), "10.0.0.1", "x-forwarded-for", &[line]);
            assert_eq!(found, Some(ip("203.0.113.9")));
        }
        let proxies_only =
            vec!["10.0.0.2"; 100].join(",") + ",203.0.113.9," + &vec!["10.0.0.3"; 100].join(",");
        let found = client(&proxies("x-forwarded-for"), "10.0.0.1", "x-forwarded-for", &[&proxies_only]);
        assert_eq!(found, Some(ip("10.0.0.3")));
    }

    #[test]
    fn the_other_header_is_the_clients_own_and_is_not_read() {
        let standard = proxies("forwarded");
        let found = client(&standard, "10.0.0.1", "x-forwarded-for", &["203.0.113.9"]);
        assert_eq!(found, Some(ip("10.0.0.1")));
        let found = client(&proxies("x-forwarded-for"), "10.0.0.1", "forwarded", &["for=203.0.113.9"]);
        assert_eq!(found, Some(ip("10.0.0.1")));
        for (line, expected) in [
            ("for=203.0.113.9", "203.0.113.9"),
            ("For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1", "2001:db8::1"),
            ("proto=https;for=203.0.113.9", "203.0.113.9"),
            ("for=1.2.3.4, for=203.0.113.9, for=10.0.0.8", "203.0.113.9"),
            ("for=203.0.113.9, for=_hidden", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("203.0.113.9", "10.0.0.1"),
        ] {
            assert_eq!(client(&standard, "10.0.0.1", "forwarded", &[line]), Some(ip(expected)), "{line}");
        }
    }

    #[test]
    fn a_program_of_this_machine_is_not_counted_and_one_behind_a_local_proxy_is() {
        let none = Proxies::default();
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(client(&none, local, "x-forwarded-for", &["203.0.113.9"]), None, "{local}");
        }
        let proxied = client(&proxies("x-forwarded-for"), "127.0.0.1", "x-forwarded-for", &["203.0.113.9"]);
        assert_eq!(proxied, Some(ip("203.0.113.9")));
        let nameless = client(&proxies("x-forwarded-for"), "127.0.0.1", "x-forwarded-for", &[]);
        assert_eq!(nameless, Some(ip("127.0.0.1")));
        assert_eq!(none.client(None, &HeaderMap::new()), None);
    }

    #[test]
    fn ipv6_is_counted_by_its_64() {
        assert_eq!(network(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
        assert_eq!(network(ip("2001:db8:1:2::9")), network(ip("2001:db8:1:2:ffff::")));
        assert_ne!(network(ip("2001:db8:1:3::9")), network(ip("2001:db8:1:2::9")));
        assert_eq!(network(ip("192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(network(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn garbage_is_no_proxy() {
        for garbage in
            ["localhost", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.1:80", "*", "/8", "0.0.0.0/0", "::/0"]
        {
            let refused = Proxies::parse(&[garbage.to_owned()], None).unwrap_err();
            assert!(refused.starts_with("--trusted-proxies: "), "{refused}");
        }
        assert!(Proxies::parse(&[], Some("via")).is_err());
        assert!(Proxies::parse(&[String::new()], None).unwrap().is_empty());
        assert!(Proxies::parse(&["10.1.2.3/8".to_owned()], None).unwrap().trusts(ip("10.200.0.1")));
    }
}
