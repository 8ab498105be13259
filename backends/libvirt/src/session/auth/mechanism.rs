//! Which SASL mechanism to use of those that the daemon offers.

use std::fmt::Write as _;

use crate::wire::MAX_MECHANISMS;

/// A mechanism that this crate supports; the best one last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mechanism {
    Plain,
    ScramSha1,
    ScramSha256,
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::ScramSha256, Self::ScramSha1, Self::Plain];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::Plain => "PLAIN",
        }
    }
}

/// The best mechanism of an offer, which has names between commas. `is_private`: whether only the
/// daemon can read what is sent; otherwise PLAIN, which sends the password, is not used.
///
/// # Errors
/// None can be used: why, and what to do.
pub(super) fn choose(offer: &[u8], is_private: bool) -> Result<Mechanism, String> {
    if offer.len() > MAX_MECHANISMS {
        return Err(format!("its list of mechanisms has {} bytes: it is broken", offer.len()));
    }
    // Cyrus's own separator is a space; libvirtd replaces it.
    let names: Vec<&[u8]> =
        offer.split(|byte| matches!(byte, b',' | b' ')).filter(|name| !name.is_empty()).collect();
    let offers = |mechanism: &Mechanism| {
        names.iter().any(|name| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    };
    let can_use = |mechanism: &Mechanism| is_private || *mechanism != Mechanism::Plain;
    if let Some(best) = Mechanism::ALL.into_iter().filter(can_use).find(offers) {
        return Ok(best);
    }
    if offers(&Mechanism::Plain) {
        return Err(
            "PLAIN, which would send the password readable for others: use a unix socket, or \
                    tls without no_verify"
                .into(),
        );
    }
    Err(format!("{}: {}", shown(&names), advice(is_private)))
}

/// What to do about an offer without a mechanism that can be used.
fn advice(is_private: bool) -> &'static str {
    if is_private {
        "set mech_list: scram-sha-256 in /etc/sasl2/libvirt.conf on the host, and give the user a \
         password with saslpasswd2 -a libvirt"
    } else {
        // libvirtd leaves out every mechanism that does not encrypt (tcp_min_ssf).
        "over plain tcp libvirtd offers only mechanisms that encrypt by themselves: use tls, ssh or \
         a unix socket, where it offers SCRAM-SHA-256 if mech_list in /etc/sasl2/libvirt.conf has it"
    }
}

/// The offered names for an error message. They come from the server, so only letters, digits,
/// hyphens and underscores are shown, and not too many.
fn shown(names: &[&[u8]]) -> String {
    const MOST: usize = 8;
    let mut text = String::new();
    for name in names.iter().take(MOST) {
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_name = name.len() <= 20 && name.iter().all(is_name);
        let separator = if text.is_empty() { "" } else { ", " };
        let name = String::from_utf8_lossy(name);
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{}", if is_name { &name } else { "(no name)" });
    }
    match names.len() {
        0 => "no mechanism".into(),
        1 => format!("{text} only, which this version does not support"),
        2..=MOST => format!("{text}, which this version does not support"),
        more => format!("{text} and {} more, which this version does not support", more - MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_mechanism_of_an_offer_is_chosen() {
        let table = [
            ("SCRAM-SHA-256,DIGEST-MD5", Mechanism::ScramSha256),
            ("PLAIN,SCRAM-SHA-1,SCRAM-SHA-256", Mechanism::ScramSha256),
            ("plain scram-sha-1", Mechanism::ScramSha1),
            ("EXTERNAL,PLAIN,LOGIN", Mechanism::Plain),
            (",SCRAM-SHA-256-PLUS,,SCRAM-SHA-1,", Mechanism::ScramSha1),
        ];
        for (offer, expected) in table {
            assert_eq!(choose(offer.as_bytes(), true), Ok(expected), "{offer}");
        }
        assert_eq!(choose(b"SCRAM-SHA-1,PLAIN", false), Ok(Mechanism::ScramSha1));
    }

    #[test]
    fn an_offer_that_cannot_be_used_is_refused_by_name() {
        let table = [
            ("DIGEST-MD5", true, "DIGEST-MD5 only, which this", "mech_list: scram-sha-256"),
            (
                "DIGEST-MD5,GSSAPI",
                false,
                "DIGEST-MD5, GSSAPI, which this",
                "use tls, ssh or a unix",
            ),
            ("GSSAPI", true, "GSSAPI only, which", "saslpasswd2"),
            ("EXTERNAL", true, "EXTERNAL only, which", "mech_list"),
            ("PLAIN", false, "readable for others", "use a unix socket, or tls"),
            ("", true, "no mechanism", "mech_list"),
            ("\x1b[2J,\n,A-VERY-LONG-MECHANISM-NAME", true, "(no name), (no name)", "mech_list"),
            ("A,B,C,D,E,F,G,H,I,J", true, "G, H and 2 more, which", "mech_list"),
        ];
        for (offer, is_private, what, advice) in table {
            let reason = choose(offer.as_bytes(), is_private).unwrap_err();
            assert!(reason.contains(what) && reason.contains(advice), "{offer:?}: {reason}");
            assert!(!reason.contains(char::is_control), "{reason:?}");
        }
        assert!(choose(&[b','; MAX_MECHANISMS + 1], true).unwrap_err().contains("it is broken"));
        assert!(choose(&[b'A'; MAX_MECHANISMS], true).unwrap_err().len() < 300);
    }
}
