//! Opens a source of domain events by its URI.
//!
//! ```no_run
//! # async fn watch() -> Result<(), virevent::Error> {
//! let hypervisor = virevent_backends::open("qemu:///system")?;
//! let events = hypervisor.subscribe_with(virevent::Options::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | URI | what it opens | feature |
//! |---|---|---|
//! | `qemu:///system`, `test:///default`, `xen+ssh://host/` ... | libvirt's own, to its daemon | `libvirt` (default) |
//! | none, or a name without a colon | libvirt's default URI, or an alias of its `libvirt.conf` | `libvirt` (default) |
//! | `qemu://host/system`, `qemu+tls://host/system` ... | the same over TLS | `tls` |
//! | `qmp:/path/vm.sock`, `qmp+tcp://127.0.0.1:4444` | a QEMU's own monitor, without a daemon | `qemu` (default) |
//! | `qmp-dir:/run/qemu`, `qmp-dir:/run/qemu?pattern=*.qmp` | the QEMUs whose monitors are in a directory, as they come and go | `qemu` (default) |
//! | `xenstore:`, `xenstore:/run/xenstored/socket` | the domains of a Xen host, from its XenStore | `xen` (default) |
//! | `nats://server:4222/stream` | a fleet in NATS JetStream, which relays write | `nats` |
//! | `fake:` | a hypervisor inside the process that plays a short scripted demo | `fake` |
//! | `fake:?replay=FILE`, `fake:?replay=FILE&speed=10` | what `watch --record FILE` recorded, exactly, at its times or faster | `fake` |
//!
//! With the feature `sasl` a libvirt daemon may demand a user and a password: from libvirt's auth file
//! or the environment. A callback for them is given to `virevent_libvirt::Libvirt`.

#![cfg_attr(docsrs, feature(doc_cfg))]

use std::sync::Arc;

pub use virevent::driver::Settings;
use virevent::{Error, EventSource};
use virevent_transport::uri::mask_password;

/// The drivers that a libvirt daemon serves.
const LIBVIRT: [&str; 9] = ["qemu", "xen", "lxc", "bhyve", "ch", "vbox", "vz", "openvz", "test"];

/// Opens the source that `uri` names. Does no I/O: the first subscription connects.
///
/// A text without a colon is libvirt's: the empty one means its default URI, any other a name in
/// `uri_aliases` of its `libvirt.conf`, which is read here.
///
/// # Errors
/// [`Error::InvalidUri`] for a scheme that this build does not know, and for what the backend of the
/// scheme finds wrong with the URI.
pub fn open(uri: &str) -> Result<Arc<dyn EventSource>, Error> {
    open_with(uri, Settings::default())
}

/// The same with what all backends share: deadlines, keepalive, reconnecting, verification.
///
/// ```
/// use std::time::Duration;
/// use virevent_backends::{Settings, open_with};
///
/// let settings = Settings::default().verify(Some(Duration::from_secs(10)));
/// let hypervisor = open_with("qemu:///system", settings)?;
/// # Ok::<(), virevent::Error>(())
/// ```
///
/// # Errors
/// As for [`open`].
pub fn open_with(uri: &str, settings: Settings) -> Result<Arc<dyn EventSource>, Error> {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return named(uri, settings);
    };
    let driver = scheme.split_once('+').map_or(scheme, |(driver, _transport)| driver);
    match driver {
        "fake" if scheme == "fake" => fake(uri, rest, &settings),
        "qmp" => qmp(uri, settings),
        "qmp-dir" if scheme == "qmp-dir" => qmp_dir(uri, settings),
        "xenstore" if scheme == "xenstore" => xenstore(uri, settings),
        "nats" if scheme == "nats" => nats(uri, settings),
        _ if LIBVIRT.contains(&driver) => libvirt(uri, settings),
        _ => Err(invalid(uri, format!("the scheme {scheme:?} is not known; {}", known()))),
    }
}

/// The schemes that this build can [`open`], without the colon. Those of libvirt take a transport
/// too: `qemu+unix`, `qemu+ssh`, and with the feature `tls` `qemu+tls`.
pub fn schemes() -> impl Iterator<Item = &'static str> {
    let libvirt = LIBVIRT.into_iter().filter(|_| cfg!(feature = "libvirt"));
    let qmp = ["qmp", "qmp+tcp", "qmp-dir"].into_iter().filter(|_| cfg!(feature = "qemu"));
    let xenstore = cfg!(feature = "xen").then_some("xenstore");
    let nats = cfg!(feature = "nats").then_some("nats");
    let fake = cfg!(feature = "fake").then_some("fake");
    libvirt.chain(qmp).chain(xenstore).chain(nats).chain(fake)
}

#[cfg(feature = "libvirt")]
fn libvirt(uri: &str, settings: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Ok(Arc::new(virevent_libvirt::Libvirt::new(uri)?.settings(settings).source()))
}

/// libvirt's default URI, or a name in its configuration.
#[cfg(feature = "libvirt")]
fn named(name: &str, settings: Settings) -> Result<Arc<dyn EventSource>, Error> {
    libvirt(name, settings).map_err(|error| match error {
        // Not where the configuration cannot be read: then the name may well be right.
        Error::InvalidUri { reason, .. }
            if reason.contains("has no driver") && !name.is_empty() =>
        {
            invalid(name, format!("{reason}; {}", known()))
        }
        error => error,
    })
}

#[cfg(not(feature = "libvirt"))]
fn named(name: &str, _: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Err(invalid(name, format!("it has no scheme; {}", known())))
}

#[cfg(not(feature = "libvirt"))]
fn libvirt(uri: &str, _: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Err(lacking(uri, "libvirt"))
}

#[cfg(feature = "qemu")]
fn qmp(uri: &str, settings: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Ok(Arc::new(virevent_qemu::Qmp::new(uri)?.settings(settings).source()))
}

#[cfg(not(feature = "qemu"))]
fn qmp(uri: &str, _: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Err(lacking(uri, "qemu"))
}

#[cfg(feature = "qemu")]
fn qmp_dir(uri: &str, settings: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Ok(Arc::new(virevent_qemu::QmpDir::new(uri)?.settings(settings).source()))
}

#[cfg(not(feature = "qemu"))]
fn qmp_dir(uri: &str, _: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Err(lacking(uri, "qemu"))
}

#[cfg(feature = "xen")]
fn xenstore(uri: &str, settings: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Ok(Arc::new(virevent_xen::XenStore::new(uri)?.settings(settings).source()))
}

#[cfg(not(feature = "xen"))]
fn xenstore(uri: &str, _: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Err(lacking(uri, "xen"))
}

#[cfg(feature = "nats")]
fn nats(uri: &str, settings: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Ok(Arc::new(virevent_nats::Nats::new(uri)?.settings(settings).source()))
}

#[cfg(not(feature = "nats"))]
fn nats(uri: &str, _: Settings) -> Result<Arc<dyn EventSource>, Error> {
    Err(lacking(uri, "nats"))
}

#[cfg(feature = "fake")]
fn fake(uri: &str, rest: &str, settings: &Settings) -> Result<Arc<dyn EventSource>, Error> {
    use virevent_testkit::{Script, scripted_with};

    match rest.strip_prefix('?') {
        Some(query) => replay(uri, query),
        None if rest.is_empty() => Ok(Arc::new(scripted_with(Script::demo(), settings))),
        None => {
            let reason = "only \"?replay=FILE\" may follow \"fake:\", which alone plays the demo";
            Err(invalid(uri, reason.into()))
        }
    }
}

/// The replay of a recording, which is read here.
#[cfg(feature = "fake")]
fn replay(uri: &str, query: &str) -> Result<Arc<dyn EventSource>, Error> {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    use virevent_testkit::{Recording, RecordingError};
    use virevent_transport::uri::percent_decode;

    let mut path = None;
    let mut speed = None;
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let slot = match name {
            "replay" => &mut path,
            "speed" => &mut speed,
            _ => {
                let reason = format!("{name:?} is not known: give replay=FILE and speed=NUMBER");
                return Err(invalid(uri, reason));
            }
        };
        if slot.replace(value).is_some() {
            return Err(invalid(uri, format!("{name} is given twice: leave one out")));
        }
    }
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Err(invalid(uri, "it names no file: give replay=FILE".into()));
    };
    let path = percent_decode(path)
        .map_err(|_| invalid(uri, "a % in the file's name is written %25".into()))?;
    let path = PathBuf::from(OsString::from_vec(path));
    let speed = speed.unwrap_or("1");
    let expected = || invalid(uri, format!("speed={speed}: give a number from 0.001 to 1000000"));
    let factor = speed.parse().map_err(|_| expected())?;
    let recording = Recording::open(&path).map_err(|error| {
        let detail = match &error {
            RecordingError::Io(cause) => format!("{error}: {cause}"),
            _ => error.to_string(),
        };
        invalid(uri, format!("{}: {detail}", path.display()))
    })?;
    let source = recording.replay().with_uri(uri).speed(factor).map_err(|_| expected())?;
    Ok(Arc::new(source))
}

#[cfg(not(feature = "fake"))]
fn fake(uri: &str, _: &str, _: &Settings) -> Result<Arc<dyn EventSource>, Error> {
    Err(lacking(uri, "fake"))
}

#[cfg(not(all(
    feature = "libvirt",
    feature = "qemu",
    feature = "xen",
    feature = "nats",
    feature = "fake"
)))]
fn lacking(uri: &str, feature: &str) -> Error {
    let help = format!("build virevent-backends with its feature {feature:?}");
    invalid(uri, format!("this build lacks that backend: {help}, or {}", known()))
}

/// What the user can do instead.
fn known() -> String {
    let schemes: Vec<_> = schemes().map(|scheme| format!("{scheme}:")).collect();
    match schemes.is_empty() {
        true => {
            "build virevent-backends with a feature: \"libvirt\", \"qemu\", \"xen\", \"nats\" or \"fake\""
                .into()
        }
        false => format!("use one of {}", schemes.join(" ")),
    }
}

fn invalid(uri: &str, reason: String) -> Error {
    Error::invalid_uri(mask_password(uri), reason)
}

// The README and the pages of docs/ are tested here, where every crate that they use is at hand.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/concepts.md")]
    mod concepts {}
    #[doc = include_str!("../../docs/metrics.md")]
    mod metrics {}
    #[doc = include_str!("../../docs/coming-from.md")]
    mod coming_from {}
    #[doc = include_str!("../../docs/libvirt.md")]
    mod libvirt {}
    #[doc = include_str!("../../docs/qemu.md")]
    mod qemu {}
    #[doc = include_str!("../../docs/xen.md")]
    mod xen {}
    #[cfg(feature = "nats")]
    #[doc = include_str!("../../docs/nats.md")]
    mod nats {}
    #[doc = include_str!("../../docs/testing.md")]
    mod testing {}
    #[doc = include_str!("../../docs/writing-a-backend.md")]
    mod writing_a_backend {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(uri: &str) -> String {
        match open(uri).unwrap_err() {
            error @ Error::InvalidUri { .. } => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    #[cfg(feature = "libvirt")]
    fn a_scheme_that_is_not_known_is_refused_with_those_that_are() {
        for uri in ["foo:///x", "QEMU:///system", "fake+unix:", ":", "qemu"] {
            let said = refusal(uri);
            assert!(said.contains(&format!("{uri:?}")) && said.contains("qemu: xen:"), "{said}");
            assert_eq!(said.ends_with(" fake:"), cfg!(feature = "fake"), "{said}");
        }
    }

    #[test]
    fn a_backend_left_out_is_refused_with_its_feature() {
        if !cfg!(feature = "libvirt") {
            assert!(refusal("qemu:///system").contains("its feature \"libvirt\""));
        }
        if !cfg!(feature = "fake") {
            assert!(refusal("fake:").contains("its feature \"fake\""));
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        assert!(refusal("foo://joe:sesame@host/x").contains("joe:***@host/x"));
    }

    #[test]
    #[cfg(feature = "libvirt")]
    fn a_backend_shows_a_uri_as_we_do() {
        for uri in ["test+tcp://joe:a:b@c@host/x?y=@z", "test+tcp://joe@host", "test:///p:q@r"] {
            assert_eq!(open(uri).unwrap().uri(), mask_password(uri));
        }
    }

    #[test]
    #[cfg(feature = "libvirt")]
    fn libvirts_schemes_open_without_a_daemon() {
        for uri in [
            "qemu:///system",
            "test+unix:///default?socket=/nowhere",
            "xen+tcp://host/",
            "qemu+ssh://host/system?proxy=netcat",
            "qemu+ext:///system?command=/nowhere",
        ] {
            assert_eq!(open(uri).unwrap().uri(), uri);
        }
    }

    #[test]
    #[cfg(feature = "qemu")]
    fn a_monitor_opens_without_a_qemu() {
        let directory = "qmp-dir:/nowhere?pattern=*.qmp";
        for uri in ["qmp:/nowhere/vm.sock", "qmp+tcp://127.0.0.1:4444", directory] {
            assert_eq!(open(uri).unwrap().uri(), uri);
        }
        assert!(refusal("qmp-dir:run").contains("absolute path"));
        assert!(refusal("qmp-dir+tcp://host/").contains("is not known"));
        assert!(refusal("qmp:vm.sock").contains("absolute path"));
        assert!(refusal("qmp+tls://host:1").contains("qmp+tcp"));
    }

    #[test]
    #[cfg(feature = "xen")]
    fn a_xenstore_opens_without_xen_and_is_not_libvirts_xen() {
        for uri in ["xenstore:", "xenstore:/nowhere/socket?dom0=1"] {
            assert_eq!(open(uri).unwrap().uri(), uri);
        }
        assert!(refusal("xenstore:socket").contains("whole path"));
        assert!(refusal("xenstore+tcp://host/").contains("is not known"));
    }

    #[test]
    #[cfg(feature = "nats")]
    fn a_fleet_opens_without_a_server() {
        for uri in ["nats://h", "nats://h:4222/fleet"] {
            assert_eq!(open(uri).unwrap().uri(), uri);
        }
        assert_eq!(open("nats://joe:a@h/fleet").unwrap().uri(), "nats://joe:***@h/fleet");
        assert!(refusal("nats:fleet").contains("nats://server"));
        assert!(refusal("nats+tls://h/x").contains("is not known"));
    }

    #[test]
    #[cfg(feature = "fake")]
    fn a_replay_needs_a_recording_and_a_speed() {
        for (uri, expected) in [
            ("fake:?", "is not known"),
            ("fake:?replay=", "it names no file"),
            ("fake:?replay=/nonexistent/x&sped=1", "\"sped\" is not known"),
            ("fake:?replay=/nonexistent/x&replay=y", "given twice"),
            ("fake:?replay=/nonexistent/x", "No such file"),
            ("fake:?replay=%zz", "%25"),
            ("fake:?replay=/nonexistent/x&speed=fast", "from 0.001"),
        ] {
            let said = refusal(uri);
            assert!(said.contains(expected), "{said}");
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let said = refusal(&format!("fake:?replay={file}"));
        assert!(said.contains("line 1: this is not a recording"), "{said}");
    }

    #[test]
    #[cfg(feature = "fake")]
    fn the_fake_opens_and_takes_no_path() {
        open("fake:").unwrap();
        assert!(refusal("fake:demo").contains("may follow"));
    }
}
