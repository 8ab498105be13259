//! Authentication: what the daemon demands before it opens anything.
//!
//! ```text
//!   AUTH_LIST ─┬─ none ───────────────────────────────────────────────▶ done
//!              ├─ polkit ─▶ AUTH_POLKIT ──────────────────────────────▶ done
//!              └─ SASL ───▶ AUTH_SASL_INIT ─▶ START ─▶ STEP ... STEP ─▶ done
//!                                 ▲                          │ refused, and the callback has others
//!                                 └──────────────────────────┘
//! ```

#[cfg(feature = "sasl")]
mod exchange;
#[cfg(feature = "sasl")]
mod mechanism;
mod polkit;
#[cfg(feature = "sasl")]
mod sasl;

use virevent::Error;

use super::{Opener, Session};
use crate::client::malformed;
use crate::wire::procs;
use crate::wire::xdr::{Malformed, Reader};

impl Session {
    pub(super) async fn authenticate(&mut self, opener: &Opener) -> Result<(), Error> {
        let reply = self.call(procs::AUTH_LIST, |_| {}).await?;
        let methods = auth_methods(&reply).map_err(|error| malformed(&error, procs::AUTH_LIST))?;
        // libvirtd accepts root on a unix socket without polkit, and answers AUTH_POLKIT there with
        // an error: only what the list contains may be called.
        if methods.is_empty() || methods.contains(&procs::auth::NONE) {
            return Ok(());
        }
        if methods.contains(&procs::auth::POLKIT) {
            return match self.call(procs::AUTH_POLKIT, |_| {}).await {
                Err(Error::Server(refusal)) => {
                    Err(polkit::refused(&refusal, &self.endpoint, opener.read_only))
                }
                outcome => outcome.map(drop),
            };
        }
        if methods.contains(&procs::auth::SASL) {
            return self.authenticate_by_sasl(opener).await;
        }
        Err(Error::authentication(format!(
            "an unknown method ({}), on {}, which this version does not support: set auth_unix_ro, \
             auth_unix_rw, auth_tcp or auth_tls to \"none\", \"polkit\" or \"sasl\" in the \
             daemon's configuration",
            methods[0], self.endpoint
        )))
    }

    #[cfg(not(feature = "sasl"))]
    #[allow(clippy::unused_async, reason = "with the feature it waits")]
    async fn authenticate_by_sasl(&mut self, _: &Opener) -> Result<(), Error> {
        Err(Error::authentication(format!(
            "SASL, on {}: build virevent-libvirt (or virevent-backends) with its feature \"sasl\", \
             or use a unix socket that does not demand it",
            self.endpoint
        )))
    }
}

/// The methods of authentication that a server accepts: see [`procs::auth`].
fn auth_methods(reply: &[u8]) -> Result<Vec<i32>, Malformed> {
    let mut body = Reader::new(reply);
    (0..body.count(20, 4)?).map(|_| body.i32()).collect()
}
