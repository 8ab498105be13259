//! The parameters of a URI: those for the client, and those for the daemon.
//!
//! libvirt's own client removes the parameters that it knows from the URI, for whatever transport
//! they are, and passes every other one on to the daemon, where the hypervisor's driver may know
//! it. This crate does the same, with two exceptions. A parameter of the client that is not for the
//! URI's transport is refused. So is a name that differs from a known one in one letter: the
//! daemon would ignore it, and the connection would go to another socket than the user meant.

use std::collections::BTreeMap;

use virevent_transport::uri::percent_decode;

/// A parameter of libvirt's client.
struct Known {
    name: &'static str,
    /// What it is for.
    purpose: &'static str,
    /// What to do where it has no use.
    instead: &'static str,
}

const fn known(name: &'static str, purpose: &'static str) -> Known {
    Known { name, purpose, instead: "leave it out" }
}

const LIBSSH: &str = "the transports libssh and libssh2";

/// Every parameter of libvirt's client.
const KNOWN: [Known; 16] = [
    known("name", "every transport"),
    known("mode", "every transport"),
    known("socket", "the transports unix and ssh"),
    known("netcat", "the transport ssh"),
    known("proxy", "the transport ssh"),
    known("command", "the transports ssh and ext"),
    known("keyfile", "the transport ssh"),
    known("no_tty", "the transport ssh"),
    known("no_verify", "the transports ssh and tls"),
    known("no_sanity", "the transport tls"),
    known("pkipath", "the transport tls"),
    Known {
        name: "tls_priority",
        purpose: "GnuTLS, which this client does not use",
        instead: "leave it out; TLS 1.3 and 1.2 are used, with the ciphers that are safe today",
    },
    known("authfile", "every transport"),
    Known {
        name: "known_hosts",
        purpose: LIBSSH,
        instead: "with ssh, set UserKnownHostsFile in its configuration",
    },
    Known {
        name: "known_hosts_verify",
        purpose: LIBSSH,
        instead: "with ssh, give no_verify=1, or set StrictHostKeyChecking in its configuration",
    },
    Known {
        name: "sshauth",
        purpose: LIBSSH,
        instead: "with ssh, set PreferredAuthentications in its configuration",
    },
];

/// The parsed parameters.
#[derive(Default)]
pub(super) struct Params {
    /// Those of the client that are not taken yet, decoded.
    given: BTreeMap<&'static str, String>,
    /// Those for the daemon, as they were written.
    pub(super) others: Vec<String>,
}

impl Params {
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut params = Self::default();
        // libvirt accepts both separators, and names of parameters in any case.
        for param in query.split(['&', ';']).filter(|param| !param.is_empty()) {
            let (raw, value) = param.split_once('=').unwrap_or((param, ""));
            let key = decoded(raw)?.to_ascii_lowercase();
            if let Some(known) = KNOWN.iter().find(|known| known.name == key) {
                params.given.insert(known.name, decoded(value)?);
            } else {
                refuse_typo(&key)?;
                params.others.push(param.into());
            }
        }
        Ok(params)
    }

    /// The value of a parameter, which may be empty.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.given.remove(name)
    }

    /// The value of a parameter that may not be empty; `what` is what it takes.
    pub(super) fn take_text(&mut self, name: &str, what: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            Some(value) if value.is_empty() => Err(format!("{name}= needs {what}")),
            value => Ok(value),
        }
    }

    /// The value of a parameter that is a number, where 0 means no.
    pub(super) fn take_flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.parse::<i32>() {
            Ok(number) => Ok(Some(number != 0)),
            Err(_) => Err(format!("{name}= is 0 or 1, not {value:?}")),
        }
    }

    /// To be called once every parameter of the transport is taken.
    pub(super) fn refuse_the_rest(&self) -> Result<(), String> {
        let given = |known: &&Known| self.given.contains_key(known.name);
        match KNOWN.iter().find(given) {
            Some(Known { name, purpose, instead }) => {
                Err(format!("{name}= is for {purpose}: {instead}"))
            }
            None => Ok(()),
        }
    }
}

fn refuse_typo(key: &str) -> Result<(), String> {
    let mut names = KNOWN.iter().map(|known| known.name);
    match names.find(|name| is_typo(key.as_bytes(), name.as_bytes())) {
        Some(name) => Err(format!(
            "is {key}= meant to be {name}=? To pass {key}= on to the daemon, give the whole URI \
             that it is to open as name="
        )),
        None => Ok(()),
    }
}

/// Whether `typed` is `meant` with one letter missing, added, replaced or swapped with its
/// neighbour.
fn is_typo(typed: &[u8], meant: &[u8]) -> bool {
    let same = typed.iter().zip(meant).take_while(|(a, b)| a == b).count();
    let typed = &typed[same..];
    let meant = &meant[same..];
    match (typed, meant) {
        // Swapped; then replaced, added and missing.
        ([a, b, typed @ ..], [c, d, meant @ ..]) if a == d && b == c => typed == meant,
        ([_, typed @ ..], [_, meant @ ..]) if typed.len() == meant.len() => typed == meant,
        ([_, rest @ ..], meant) if rest.len() == meant.len() => rest == meant,
        (typed, [_, rest @ ..]) => typed == rest,
        _ => false,
    }
}

pub(super) fn decoded(text: &str) -> Result<String, String> {
    let bytes = percent_decode(text).map_err(|error| format!("{text:?}: {error}"))?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(format!("{text:?} is not UTF-8 or contains a NUL")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str) -> String {
        Params::parse(query).err().unwrap_or_else(|| panic!("{query} is accepted"))
    }

    #[test]
    fn a_parameter_that_no_transport_took_is_refused() {
        for Known { name, purpose, instead } in KNOWN {
            let error = Params::parse(&format!("a=1&{name}=x")).unwrap().refuse_the_rest();
            assert_eq!(error.unwrap_err(), format!("{name}= is for {purpose}: {instead}"));
        }
        let mut params = Params::parse("KeyFile=k&a=1").unwrap();
        assert_eq!(params.take("keyfile").as_deref(), Some("k"));
        assert_eq!(params.refuse_the_rest(), Ok(()));
    }

    #[test]
    fn a_flag_is_a_number() {
        for (query, value) in [("no_tty=1", Some(true)), ("no_tty=0", Some(false)), ("a=1", None)] {
            assert_eq!(Params::parse(query).unwrap().take_flag("no_tty"), Ok(value));
        }
        for query in ["no_tty=yes", "no_tty=", "no_tty"] {
            let error = Params::parse(query).unwrap().take_flag("no_tty").unwrap_err();
            assert!(error.contains("no_tty= is 0 or 1"), "{error}");
        }
    }

    #[test]
    fn a_parameter_one_letter_from_a_known_one_is_refused() {
        let table = [
            ("sokcet", "socket"),
            ("scoket", "socket"),
            ("soket", "socket"),
            ("ocket", "socket"),
            ("sockett", "socket"),
            ("sockte", "socket"),
            ("ssocket", "socket"),
            ("Sacket", "socket"),
            ("mod", "mode"),
            ("mdoe", "mode"),
            ("nane", "name"),
            ("authfil", "authfile"),
            ("knownhosts", "known_hosts"),
            ("pki_path", "pkipath"),
            ("no-verify", "no_verify"),
            ("keyfiles", "keyfile"),
        ];
        for (typed, meant) in table {
            let error = refusal(&format!("{typed}=/x"));
            assert!(error.contains(&format!("meant to be {meant}=?")), "{typed}: {error}");
        }
    }

    #[test]
    fn any_other_parameter_is_for_the_daemon() {
        let queries =
            ["a=1", "root=/x", "sock=1", "modest", "na", "tekcos", "auto_answer=1", "soccets"];
        for query in queries {
            assert_eq!(Params::parse(query).unwrap().others, [query]);
        }
    }
}
