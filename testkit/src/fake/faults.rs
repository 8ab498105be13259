//! What goes wrong between a fake hypervisor and its driver.

use std::io;
use std::sync::Arc;

use virevent::driver::Listed;
use virevent::{Error, Fault, Kind, Scope};

use super::FakeHypervisor;
use super::line::{self, Connects, ENDPOINT, Falsify};

/// What goes wrong with the connection, and how it is mended.
impl FakeHypervisor {
    /// Cuts the connection; the next attempt to connect succeeds, unless something else was said.
    pub fn lose_connection(&self) {
        self.line.change(line::State::lose);
    }

    /// Cuts the connection and lets none be made until [`restore`](Self::restore).
    pub fn go_down(&self) {
        let refused = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        self.refuse(Error::Unreachable {
            endpoint: ENDPOINT.into(),
            reason: "it is down".into(),
            source: refused,
        });
        self.lose_connection();
    }

    /// Lets connections be made again, and everything that hangs go on.
    pub fn restore(&self) {
        self.line.change(|state| {
            state.connects = Connects::Succeed;
            (state.lists_hang, state.registrations_hang) = (false, false);
        });
    }

    /// Attempts to connect fail with this error, until [`accept`](Self::accept). A connection that
    /// there is goes on.
    pub fn refuse(&self, error: Error) {
        self.line.change(|state| state.connects = Connects::Fail(error));
    }

    /// Attempts to connect succeed again; one that hangs succeeds now.
    pub fn accept(&self) {
        self.line.change(|state| state.connects = Connects::Succeed);
    }

    /// Attempts to connect hang, until [`accept`](Self::accept).
    pub fn hang_connects(&self) {
        self.line.change(|state| state.connects = Connects::Hang);
    }

    /// The question which domains there are is not answered, until
    /// [`release_lists`](Self::release_lists). Events flow.
    pub fn hang_lists(&self) {
        self.line.change(|state| state.lists_hang = true);
    }

    /// Answers the question which domains there are, as of now.
    pub fn release_lists(&self) {
        self.line.change(|state| state.lists_hang = false);
    }

    /// From now on a list is what `falsify` makes of the true one: that of a backend that leaves
    /// domains out, or says of them what is not so.
    pub fn falsify_lists(&self, falsify: impl FnMut(&mut Vec<Listed>) + Send + 'static) {
        self.line.change(|state| state.falsify = Some(Falsify(Box::new(falsify))));
    }

    /// Registrations and deregistrations are neither done nor confirmed, until
    /// [`release_registrations`](Self::release_registrations).
    pub fn hang_registrations(&self) {
        self.line.change(|state| state.registrations_hang = true);
    }

    /// Does and confirms registrations again.
    pub fn release_registrations(&self) {
        self.line.change(|state| state.registrations_hang = false);
    }

    /// From the next connection on the server lacks this kind, as after a downgrade.
    pub fn lack(&self, kind: Kind) {
        self.line.change(|state| state.lacking.insert(kind));
    }

    /// The connection that there is goes half-open: nothing comes over it any more, no answer to a
    /// ping either, and no end. The next one is sound.
    pub fn go_silent(&self) {
        self.line.change(|state| {
            if let Some(live) = &mut state.live {
                live.silent = true;
            }
        });
    }

    /// A part of what is behind the connection (one host of many, one domain's socket) goes out of
    /// reach: its events are not told until [`restored`](Self::restored).
    pub fn disconnected(&self, scope: Scope, fault: Fault) {
        self.line.change(|state| state.go_out(self.host(), scope, fault));
    }

    /// That part is back: says how its domains are now.
    pub fn restored(&self, scope: Scope) {
        self.line.change(|state| state.come_back(scope));
    }
}
