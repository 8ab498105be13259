//! A user with a password, and the callback that gives them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use virevent::Error;
use zeroize::Zeroizing;

/// The most bytes of user and password. Less than libvirt's limit for SASL data, 64 KiB.
const MAX_SIZE: usize = 16 * 1024;

/// A user and a password for a libvirt daemon that demands SASL.
///
/// The password is overwritten when the value is dropped, and `Debug` does not show it. Copies that
/// the caller keeps are not ours to erase: move the text in.
///
/// As a [`CredentialsCallback`] it gives itself once, so that a refusal is the end.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

impl Credentials {
    /// The user is a name as in `fred`, or with its realm as in `fred@vmhost`.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Zeroizing::new(password.into()) }
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// How many bytes both have.
    pub(crate) fn size(&self) -> usize {
        self.user.len() + self.password.len()
    }

    /// Why no server can accept them; `None` if one may.
    fn problem(&self) -> Option<&'static str> {
        match (&*self.user, &**self.password) {
            ("", _) => Some("the user is empty"),
            (_, "") => Some("the password is empty"),
            (user, _) if user.contains('\0') => Some("the user contains a NUL"),
            (_, password) if password.contains('\0') => Some("the password contains a NUL"),
            _ if self.size() > MAX_SIZE => Some("user and password have more than 16 KiB"),
            _ => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a [`CredentialsCallback`] is asked.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct CredentialsRequest {
    /// The source's URI, without secrets.
    pub uri: String,
    /// The host as the URI has it; `localhost` for a unix socket.
    pub host: String,
    /// The SASL mechanism: `SCRAM-SHA-256`, `SCRAM-SHA-1` or `PLAIN`.
    pub mechanism: &'static str,
    /// How often the callback has been asked on this connection, this time included: from 1 to 3.
    pub attempt: u32,
    /// The server's message to the credentials of the last attempt, which it refused.
    pub refusal: Option<String>,
}

/// Gives credentials when a daemon demands them: from a store of secrets, or from a person.
///
/// It is asked on every connection, so also after a reconnect. After a refusal it is asked again on
/// the same connection, three times in all. The time that it takes counts as connecting:
/// [`connect_timeout`](crate::Libvirt::connect_timeout) is 10 s unless it is set.
///
/// ```
/// use virevent_libvirt::{Credentials, CredentialsCallback, CredentialsRequest};
///
/// struct Vault;
///
/// #[async_trait::async_trait]
/// impl CredentialsCallback for Vault {
///     async fn credentials(&self, request: &CredentialsRequest) -> Option<Credentials> {
///         // A second try with the same password would be refused again.
///         let password = match request.attempt {
///             1 => read_secret(&request.host).await?,
///             _ => return None,
///         };
///         Some(Credentials::new("fred", password))
///     }
/// }
/// # async fn read_secret(host: &str) -> Option<String> { None }
///
/// let libvirt = virevent_libvirt::Libvirt::new("qemu:///system")?.credentials(Vault);
/// # Ok::<(), virevent::Error>(())
/// ```
#[async_trait]
pub trait CredentialsCallback: Send + Sync + 'static {
    /// The credentials for this request. `None` if there are none: on the first attempt the auth
    /// file and the environment are examined then, and after a refusal the subscription fails with
    /// that refusal.
    ///
    /// # Cancel safety
    /// The future is dropped at the deadline of the connection.
    async fn credentials(&self, request: &CredentialsRequest) -> Option<Credentials>;
}

#[async_trait]
impl CredentialsCallback for Credentials {
    async fn credentials(&self, request: &CredentialsRequest) -> Option<Credentials> {
        (request.attempt == 1).then(|| self.clone())
    }
}

/// A callback without its content in `Debug`, which may be a password.
#[derive(Clone)]
pub(crate) struct Callback(pub(crate) Arc<dyn CredentialsCallback>);

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback(..)")
    }
}

/// Credentials to be tried, and where they come from.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) credentials: Credentials,
    /// For error messages: with the user, without the password.
    pub(crate) origin: String,
}

impl Candidate {
    /// # Errors
    /// No server can accept them: user or password are empty, or contain a NUL.
    pub(crate) fn new(credentials: Credentials, place: &str) -> Result<Self, Error> {
        let origin = format!("{place} (user {:?})", credentials.user());
        match credentials.problem() {
            Some(problem) => {
                Err(Error::authentication(format!("SASL, and in {place} {problem}: correct it")))
            }
            None => Ok(Self { credentials, origin }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_a_password() {
        let credentials = Credentials::new("fred", "s3cr3t");
        let candidate = Candidate::new(credentials.clone(), "the callback").unwrap();
        let callback = Callback(Arc::new(credentials.clone()));
        let shown = format!("{credentials:?} {credentials:#?} {candidate:?} {callback:?}");
        assert!(shown.contains("fred") && !shown.contains("s3cr3t"), "{shown}");
    }

    #[test]
    fn what_no_server_can_accept_is_an_error_without_the_password() {
        let table = [
            ("", "s3cr3t", "the user is empty"),
            ("fred", "", "the password is empty"),
            ("fr\0ed", "s3cr3t", "the user contains a NUL"),
            ("fred", "s3cr3t\0", "the password contains a NUL"),
        ];
        let long = "s3cr3t".repeat(MAX_SIZE / 6 + 1);
        let long = [("fred", &*long, "more than 16 KiB")];
        for (user, password, problem) in table.into_iter().chain(long) {
            let error = Candidate::new(Credentials::new(user, password), "the file").unwrap_err();
            let line = error.to_line();
            assert!(line.contains(problem) && line.contains("in the file"), "{line}");
            assert!(error.is_refusal() && !line.contains("s3cr3t"), "{line}");
        }
    }
}
