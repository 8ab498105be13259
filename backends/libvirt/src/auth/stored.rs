//! Credentials that are stored: libvirt's auth file, and two environment variables.
//!
//! The file is looked for where libvirt does (`virAuthGetConfigFilePathURI`): `LIBVIRT_AUTH_FILE`,
//! the URI's `authfile=`, the user's configuration, the host's. The first that is named or exists
//! decides; a file that is named must exist.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use virevent::Error;
use zeroize::Zeroizing;

use super::key_file::KeyFile;
use super::{Candidate, Credentials};

/// The environment variable with the user, where neither a callback nor an auth file has one.
pub const USER_VARIABLE: &str = "VIREVENT_LIBVIRT_USER";
/// The environment variable with that user's password.
pub const PASSWORD_VARIABLE: &str = "VIREVENT_LIBVIRT_PASSWORD";

/// The most bytes of an auth file; libvirt reads as much of its own files.
const MAX_FILE: usize = 1024 * 1024;

/// Where stored credentials may be.
pub(crate) struct Places {
    /// `LIBVIRT_AUTH_FILE`; also when it is empty, as in libvirt.
    named: Option<PathBuf>,
    /// Below the user's configuration.
    user: Option<PathBuf>,
    /// Below the host's configuration.
    host: PathBuf,
    user_variable: Option<Zeroizing<String>>,
    password_variable: Option<Zeroizing<String>>,
}

impl Places {
    /// # Errors
    /// A variable is not UTF-8.
    pub(crate) fn now() -> Result<Self, Error> {
        Self::of(std::env::var_os)
    }

    fn of(variable: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, Error> {
        let directory = |name| variable(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let user = directory("XDG_CONFIG_HOME")
            .or_else(|| directory("HOME").map(|home| home.join(".config")));
        let text = |name| match variable(name).map(OsString::into_string) {
            // An empty one is unset: a shell cannot easily unset one for a single command.
            Some(Ok(text)) if !text.is_empty() => Ok(Some(Zeroizing::new(text))),
            Some(Err(_)) => Err(Error::authentication(format!("SASL, and {name} is not UTF-8"))),
            _ => Ok(None),
        };
        Ok(Self {
            named: variable("LIBVIRT_AUTH_FILE").map(PathBuf::from),
            user: user.map(|directory| directory.join("libvirt/auth.conf")),
            host: "/etc/libvirt/auth.conf".into(),
            user_variable: text(USER_VARIABLE)?,
            password_variable: text(PASSWORD_VARIABLE)?,
        })
    }

    /// The auth file that decides, and what names it; `None` if there is none.
    fn auth_file<'a>(&'a self, parameter: Option<&'a str>) -> Option<(&'a Path, &'static str)> {
        if let Some(path) = &self.named {
            return Some((path, "LIBVIRT_AUTH_FILE names it"));
        }
        if let Some(path) = parameter {
            return Some((Path::new(path), "authfile= in the URI names it"));
        }
        let user = self.user.as_deref();
        let path = user.into_iter().chain([&*self.host]).find(|path| File::open(path).is_ok())?;
        Some((path, "it is the default one"))
    }

    fn variables(&self) -> Result<Option<Candidate>, Error> {
        let lacks = |has, lacks| {
            Error::authentication(format!("SASL, and {has} is set but {lacks} is not: set both"))
        };
        match (&self.user_variable, &self.password_variable) {
            (Some(user), Some(password)) => {
                let credentials = Credentials::new(&**user, &**password);
                Candidate::new(credentials, "the environment").map(Some)
            }
            (Some(_), None) => Err(lacks(USER_VARIABLE, PASSWORD_VARIABLE)),
            (None, Some(_)) => Err(lacks(PASSWORD_VARIABLE, USER_VARIABLE)),
            (None, None) => Ok(None),
        }
    }
}

/// The stored credentials for `host`; `authfile` is the URI's parameter. `None` if there are none.
///
/// # Errors
/// The auth file cannot be read or used: which, where in it, and what to do.
pub(crate) fn find(
    places: &Places,
    authfile: Option<&str>,
    host: &str,
) -> Result<Option<Candidate>, Error> {
    if let Some((path, named_by)) = places.auth_file(authfile) {
        let shown = path.display();
        let text = read(path).map_err(|error| {
            Error::authentication(format!(
                "SASL, and the auth file {shown} cannot be read ({error}); {named_by}"
            ))
        })?;
        if let Some(candidate) = look_up(&text, path.as_os_str(), host)? {
            return Ok(Some(candidate));
        }
    }
    places.variables()
}

/// Reads the file into memory that is overwritten after use.
fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    // Before it is opened: opening a pipe waits for its other end.
    let size = match path.metadata()? {
        file if file.is_file() => file.len(),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    };
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, "it has more than 1 MiB");
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_FILE).ok_or_else(too_long)?;
    // With room for one byte more: a buffer that grows would leave a copy behind.
    let mut bytes = Zeroizing::new(vec![0; size + 1]);
    let mut file = File::open(path)?;
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length > size {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it changed while it was read"));
    }
    let text = std::str::from_utf8(&bytes[..length])
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The credentials for `host` in an auth file with this text; `None` if it has none for it.
fn look_up(text: &str, path: &OsStr, host: &str) -> Result<Option<Candidate>, Error> {
    let shown = Path::new(path).display();
    let wrong = |what: String| {
        Error::authentication(format!("SASL, and the auth file {shown} is wrong: {what}"))
    };
    let file = KeyFile::parse(text).map_err(|bad| {
        wrong(format!(
            "{} in line {}; libvirt ignores the whole file then",
            bad.problem, bad.number
        ))
    })?;
    let groups = [format!("auth-libvirt-{host}"), "auth-libvirt-default".into()];
    let Some(group) = groups.iter().find(|group| file.has_group(group)) else { return Ok(None) };
    let Some(name) = file.value(group, "credentials") else {
        return Err(wrong(format!("[{group}] has no line credentials=NAME")));
    };
    let holder = format!("credentials-{}", &**name);
    if !file.has_group(&holder) {
        return Err(wrong(format!("[{group}] names {holder:?}, but there is no [{holder}]")));
    }
    let value = |key: &str| {
        let value = file.value(&holder, key);
        value.ok_or_else(|| wrong(format!("[{holder}], which [{group}] names, has no line {key}=")))
    };
    let user = value("authname")?;
    let mut password = value("password")?;
    let credentials = Credentials::new(&**user, std::mem::take(&mut *password));
    Candidate::new(credentials, &format!("the auth file {shown} [{holder}]")).map(Some)
}

#[cfg(test)]
mod tests;
