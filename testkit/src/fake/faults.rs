//! The faults between a fake hypervisor and its driver.

use std::io;
use std::sync::Arc;

use virevent::driver::Listed;
use virevent::{Error, Fault, Kind, Scope};

use super::FakeHypervisor;
use super::line::{self, Connects, ENDPOINT, Falsify};

/// Faults of the connection, and their ends.
impl FakeHypervisor {
    /// Cuts the connection. The next attempt to connect succeeds, unless another fault prevents it.
    pub fn lose_connection(&self) {
        self.line.change(line::State::lose);
    }

    /// Cuts the connection and refuses new ones until [`restore`](Self::restore).
    pub fn go_down(&self) {
        // The error of a daemon that is not running, so that the driver retries.
        let refused = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        self.refuse(Error::unreachable(ENDPOINT, "it is down", refused));
        self.lose_connection();
    }

    /// Accepts connections again, and answers everything that hangs.
    pub fn restore(&self) {
        self.line.change(|state| {
            state.connects = Connects::Succeed;
            state.lists_hang = false;
            state.registrations_hang = false;
        });
    }

    /// Makes attempts to connect fail with this error until [`accept`](Self::accept). An open
    /// connection is kept.
    pub fn refuse(&self, error: Error) {
        self.line.change(|state| state.connects = Connects::Fail(error));
    }

    /// Makes attempts to connect succeed again. One that hangs succeeds now.
    pub fn accept(&self) {
        self.line.change(|state| state.connects = Connects::Succeed);
    }

    /// Makes attempts to connect hang until [`accept`](Self::accept).
    pub fn hang_connects(&self) {
        self.line.change(|state| state.connects = Connects::Hang);
    }

    /// Leaves lists unanswered until [`release_lists`](Self::release_lists). Events flow.
    pub fn hang_lists(&self) {
        self.line.change(|state| state.lists_hang = true);
    }

    /// Answers lists again. One that hangs is answered with the domains as of now.
    pub fn release_lists(&self) {
        self.line.change(|state| state.lists_hang = false);
    }

    /// Changes every list by `falsify` from now on, as a wrong backend that leaves domains out or
    /// reports wrong states.
    pub fn falsify_lists(&self, falsify: impl FnMut(&mut Vec<Listed>) + Send + 'static) {
        self.line.change(|state| state.falsify = Some(Falsify(Box::new(falsify))));
    }

    /// Leaves registrations and deregistrations undone and unconfirmed until
    /// [`release_registrations`](Self::release_registrations).
    pub fn hang_registrations(&self) {
        self.line.change(|state| state.registrations_hang = true);
    }

    /// Executes and confirms registrations again.
    pub fn release_registrations(&self) {
        self.line.change(|state| state.registrations_hang = false);
    }

    /// Makes the hypervisor refuse this kind from the next registration on, as after a downgrade.
    pub fn lack(&self, kind: Kind) {
        self.line.change(|state| state.lacking.insert(kind));
    }

    /// Makes the open connection half-open: nothing comes over it, neither replies to pings nor its
    /// end. The next connection works.
    pub fn go_silent(&self) {
        self.line.change(|state| {
            if let Some(live) = &mut state.live {
                live.silent = true;
            }
        });
    }

    /// Makes a part unreachable (one host of many, one domain's socket). Its events are not
    /// delivered until [`restored`](Self::restored).
    pub fn disconnected(&self, scope: Scope, fault: Fault) {
        self.line.change(|state| state.disconnect_part(self.host(), scope, fault));
    }

    /// Makes that part reachable again, and reports the states of its domains.
    pub fn restored(&self, scope: Scope) {
        self.line.change(|state| state.restore_part(scope));
    }
}
