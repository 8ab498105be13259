//! The URI that is meant by an empty one, and by a name.

use virevent::Error;

use super::ClientConfig;
use crate::endpoint::Environment;

/// The URI that `text` means. A text with a colon is a URI, and is returned without any I/O. An
/// empty one is the default: `LIBVIRT_DEFAULT_URI`, else `uri_default` of `libvirt.conf`, else the
/// driver that the daemon chooses. Any other is a name in `uri_aliases` of `libvirt.conf`; so may
/// the default be.
///
/// # Errors
/// [`Error::InvalidUri`]: there is no such name, or the file cannot be used.
pub(crate) fn resolve(text: &str, environment: &Environment) -> Result<String, Error> {
    if text.contains(':') {
        return Ok(text.into());
    }
    let invalid = |reason| Error::invalid_uri(text, reason);
    let config = ClientConfig::load(environment.config_file.as_deref()).map_err(invalid)?;
    let default = if text.is_empty() {
        let given = match environment.default_uri.as_deref() {
            Some(uri) => Some(uri),
            None => config.default_uri().map_err(invalid)?,
        };
        // An empty name leaves the choice of the driver to the daemon.
        let daemons_own =
            if environment.is_root { "qemu:///system?name=" } else { "qemu:///session?name=" };
        given.filter(|uri| !uri.is_empty()).unwrap_or(daemons_own)
    } else {
        text
    };
    if default.contains(':') {
        return Ok(default.into());
    }
    config.alias(default).map_err(invalid)?.map(Into::into).ok_or_else(|| {
        let place = match &environment.config_file {
            Some(path) => path.display().to_string(),
            None => "libvirt.conf".into(),
        };
        invalid(format!(
            "{default:?} has no driver, as in qemu:///system, and is no name in uri_aliases of \
             {place}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::environment_for_tests;

    const FILE: &str = "uri_aliases = [\"hail=test:///default\", \"snow=hail\"]\n";

    struct Home {
        directory: tempfile::TempDir,
        environment: Environment,
    }

    fn home(file: &str) -> Home {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("libvirt.conf");
        std::fs::write(&path, file).unwrap();
        let environment = Environment { config_file: Some(path), ..environment_for_tests(false) };
        Home { directory, environment }
    }

    #[test]
    fn the_default_uri_is_of_environment_file_then_daemon() {
        let mut home = home(FILE);
        let resolved = |home: &Home| resolve("", &home.environment).unwrap();
        assert_eq!(resolved(&home), "qemu:///session?name=");
        home.environment.is_root = true;
        assert_eq!(resolved(&home), "qemu:///system?name=");
        let path = home.directory.path().join("libvirt.conf");
        std::fs::write(&path, format!("{FILE}uri_default = \"xen:///\"")).unwrap();
        assert_eq!(resolved(&home), "xen:///");
        home.environment.default_uri = Some("lxc:///".into());
        assert_eq!(resolved(&home), "lxc:///");
        home.environment.default_uri = Some("hail".into());
        assert_eq!(resolved(&home), "test:///default");
    }

    #[test]
    fn a_name_is_replaced_once() {
        let home = home(FILE);
        assert_eq!(resolve("hail", &home.environment).unwrap(), "test:///default");
        assert_eq!(resolve("snow", &home.environment).unwrap(), "hail");
        for name in ["Hail", "rain", "system"] {
            let error = resolve(name, &home.environment).unwrap_err();
            let line = error.to_line();
            assert!(error.is_refusal(), "{line}");
            assert!(line.contains(name) && line.contains("libvirt.conf"), "{line}");
        }
    }

    #[test]
    fn a_broken_file_fails_names_and_not_yet_uris() {
        let home = home("uri_default\n");
        for text in ["", "hail"] {
            let line = resolve(text, &home.environment).unwrap_err().to_line();
            assert!(line.contains("libvirt.conf:1: expected ="), "{line}");
        }
        // The file is read when it connects.
        assert_eq!(resolve("test:///x", &home.environment).unwrap(), "test:///x");
    }
}
