//! An exporter to copy: the metrics of hypervisors and their domains at `/metrics`, for Prometheus.
//!
//! Copy the folder, and register your own metrics beside those of the sources in `serve`.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Router, routing::get};
use futures::FutureExt;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::sleep;
use virevent::metrics::Metrics;
use virevent::{Error, EventSourceExt, Fleet, Kinds, Options};

/// How long a response that is under way may hold up the end.
const GRACE: Duration = Duration::from_secs(1);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the metrics of the fleet's members until `shutdown` resolves.
///
/// A member that cannot be reached, at the start or later, is `virevent_up 0`; it is no error, and
/// takes the metrics of no other away. Members may be added and removed meanwhile: each has series
/// as long as it is one.
///
/// # Errors
/// The fleet was shut down before.
pub async fn serve(
    fleet: Fleet,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    // The events are counted that are subscribed to. A kind that a hypervisor lacks is left out.
    let store = fleet.store_with(Options::default().kinds(Kinds::all())).await?;
    let metrics = Metrics::default();
    let _series = metrics.add(Arc::new(fleet)).domains(store.clone());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));

    let app = Router::new()
        .route("/", get("The metrics are at /metrics.\n"))
        .route("/metrics", get(scrape))
        .with_state(Arc::new(registry));
    let shutdown = shutdown.shared();
    let served = axum::serve(listener, app).with_graceful_shutdown(shutdown.clone());
    tokio::select! {
        // It ends without an error: what fails about a connection concerns that one alone.
        _ = served.into_future() => {}
        () = shutdown.then(|()| sleep(GRACE)) => {}
    }
    // Waits until the hypervisors have confirmed the deregistration; dropping it would not.
    store.close().await;
    Ok(())
}

async fn scrape(State(registry): State<Arc<Registry>>) -> Result<impl IntoResponse, StatusCode> {
    let mut text = String::new();
    // Those of sources never fail; a metric of yours might.
    encode(&mut text, &registry).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text))
}
