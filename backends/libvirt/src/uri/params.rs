//! The parameters of a URI: those for the client, and those for the daemon.
//!
//! libvirt's own client removes the parameters that it knows from the URI, for whatever transport
//! they are, and passes every other one on to the daemon, where the hypervisor's driver may know
//! it. This crate does the same, with two exceptions. A parameter of the client that this crate
//! does not support is refused. So is a name that differs from a known one in one letter: the
//! daemon would ignore it, and the connection would go to another socket than the user meant.

use virevent_transport::uri::percent_decode;

use super::{Mode, TlsParams};

/// Parameters of libvirt's client that this backend does not support, and what they are for.
const UNSUPPORTED: [(&str, &str); 9] = [
    ("netcat", "the transport ssh"),
    ("proxy", "the transport ssh"),
    ("command", "the transports ssh and ext"),
    ("keyfile", "the transport ssh"),
    ("no_tty", "the transport ssh"),
    ("known_hosts", "the transport ssh"),
    ("known_hosts_verify", "the transport ssh"),
    ("sshauth", "the transport ssh"),
    ("authfile", "authentication by SASL, which this version does not support"),
];

/// The parameters that this backend supports.
const SUPPORTED: [&str; 7] =
    ["name", "socket", "mode", "pkipath", "no_verify", "no_sanity", "tls_priority"];

const TLS_PRIORITY: &str = "tls_priority= chooses among the ciphers of GnuTLS, which this client \
     does not use: leave it out; TLS 1.3 and 1.2 are used, with the ciphers that are safe today";

/// The parsed parameters.
#[derive(Default)]
pub(super) struct Params {
    pub(super) name: Option<String>,
    pub(super) socket: Option<String>,
    pub(super) mode: Option<Mode>,
    pub(super) tls: TlsParams,
    /// The first parameter that only the transport tls has.
    pub(super) only_tls: Option<&'static str>,
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
            match &*key {
                "name" => params.name = Some(decoded(value)?),
                "socket" => match decoded(value)? {
                    path if path.is_empty() => return Err("socket= needs a path".into()),
                    path => params.socket = Some(path),
                },
                "mode" => params.mode = Some(mode(value)?),
                "pkipath" => params.pki_path(decoded(value)?)?,
                "no_verify" => {
                    params.only_tls.get_or_insert("no_verify");
                    params.tls.no_verify = is_set("no_verify", value)?;
                }
                // libvirt's client would not check its own certificates before it connects. This
                // one never does: the server's verdict is the one that counts.
                "no_sanity" => {
                    params.only_tls.get_or_insert("no_sanity");
                    is_set("no_sanity", value)?;
                }
                "tls_priority" => return Err(TLS_PRIORITY.into()),
                key => {
                    refuse_unsupported(key)?;
                    refuse_typo(key)?;
                    params.others.push(param.into());
                }
            }
        }
        Ok(params)
    }

    fn pki_path(&mut self, path: String) -> Result<(), String> {
        self.only_tls.get_or_insert("pkipath");
        // The working directory of a service is not what its user thinks of.
        if !path.starts_with('/') {
            return Err("pkipath= needs the absolute path of a directory".into());
        }
        self.tls.pkipath = Some(path);
        Ok(())
    }
}

/// A number that libvirt takes for a switch: 0 is off.
fn is_set(name: &str, value: &str) -> Result<bool, String> {
    match value.parse::<i32>() {
        Ok(number) => Ok(number != 0),
        Err(_) => Err(format!("{name}= is 0 or 1, not {value:?}")),
    }
}

fn mode(value: &str) -> Result<Mode, String> {
    match value {
        "auto" => Ok(Mode::Auto),
        "legacy" => Ok(Mode::Legacy),
        "direct" => Ok(Mode::Direct),
        _ => Err(format!("{value:?} is no mode: give auto, legacy or direct")),
    }
}

fn refuse_unsupported(key: &str) -> Result<(), String> {
    match UNSUPPORTED.iter().find(|(name, _)| *name == key) {
        Some((name, purpose)) => Err(format!("{name}= is for {purpose}: leave it out")),
        None => Ok(()),
    }
}

fn refuse_typo(key: &str) -> Result<(), String> {
    let known = SUPPORTED.into_iter().chain(UNSUPPORTED.iter().map(|(name, _)| *name));
    match known.into_iter().find(|name| is_typo(key.as_bytes(), name.as_bytes())) {
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

/// The text without its percent escapes.
fn decoded(text: &str) -> Result<String, String> {
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
    fn an_unsupported_parameter_is_refused_by_name() {
        for (name, purpose) in UNSUPPORTED {
            let error = refusal(&format!("a=1&{name}=x"));
            assert!(error.contains(name) && error.contains(purpose), "{error}");
        }
        assert!(refusal("KeyFile=k").contains("keyfile="));
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
