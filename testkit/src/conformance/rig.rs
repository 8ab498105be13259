//! The operations that the checks need.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use virevent::EventSource;

use crate::Failure;

/// A source, and the operations on the hypervisor behind it. Each check gets a new rig.
///
/// An operation that is not supported returns [`Failure::unsupported`], as the default bodies do.
#[async_trait]
pub trait Rig: Send + Sync {
    /// A new source, without subscribers.
    fn source(&self) -> Arc<dyn EventSource>;

    /// Starts the domain with this name, and makes it if there is none.
    ///
    /// # Errors
    /// The operation fails.
    async fn start(&self, name: &str) -> Result<(), Failure>;

    /// Ends the domain's run by force.
    ///
    /// # Errors
    /// The operation fails or is not supported.
    async fn stop(&self, name: &str) -> Result<(), Failure>;

    /// Pauses a running domain.
    ///
    /// # Errors
    /// The operation fails or is not supported.
    async fn suspend(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("suspend a domain"))
    }

    /// Resumes a paused domain.
    ///
    /// # Errors
    /// The operation fails or is not supported.
    async fn resume(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("resume a domain"))
    }

    /// Defines a domain that does not exist yet.
    ///
    /// # Errors
    /// The operation fails or is not supported.
    async fn define(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("define a domain"))
    }

    /// Removes the definition of an inactive domain.
    ///
    /// # Errors
    /// The operation fails or is not supported.
    async fn undefine(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("undefine a domain"))
    }

    /// Cuts the source's connection and refuses new ones until [`heal`](Rig::heal). Domains can be
    /// started and stopped meanwhile.
    ///
    /// # Errors
    /// The operation fails or is not supported.
    async fn break_connection(&self) -> Result<(), Failure> {
        Err(Failure::unsupported("break the connection"))
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// The operation fails or is not supported.
    async fn heal(&self) -> Result<(), Failure> {
        Err(Failure::unsupported("heal the connection"))
    }

    /// The number of registrations for events at the hypervisor now.
    ///
    /// # Errors
    /// They cannot be counted.
    async fn registrations(&self) -> Result<usize, Failure> {
        Err(Failure::unsupported("count registrations"))
    }

    /// Ends the domain's run without an event, because the hypervisor sends none or because the
    /// event is dropped on its way.
    ///
    /// # Errors
    /// The operation fails or is not supported.
    async fn stop_silently(&self, _name: &str) -> Result<(), Failure> {
        Err(Failure::unsupported("end a run without an event"))
    }

    /// The interval of the source's verifications. Default: 60 s, that of the driver.
    fn verification(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Whether the backend finds silent ends by itself, beside the driver's verification, and
    /// reports some of them as observed. Default: false, so that each must be inferred.
    fn observes_silent_ends(&self) -> bool {
        false
    }

    /// The timeout of an event, from its cause to the subscriber. Default: 10 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// The silence after which no more events are expected. Default: 300 ms.
    fn silence(&self) -> Duration {
        Duration::from_millis(300)
    }
}
