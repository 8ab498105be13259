//! Tests of auto traits and object safety: part of the API, though no signature says so.

use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::FusedStream;
use virevent::driver::{Driver, Reconnect};
use virevent::{
    Capabilities, Changed, Counters, Domain, DomainEvent, DomainStore, End, Error, EventSource,
    EventStream, Events, Health, Kind, Merged, MergedItem, Options, Snapshot, Status, Subscription,
    Transition,
};

fn portable<T: Send + Sync + Unpin + Debug + 'static>() {}
fn fused<T: FusedStream<Item = DomainEvent> + Unpin>() {}
fn source<T: EventSource + ?Sized>() {}

#[test]
fn public_types_are_send_sync_and_unpin() {
    portable::<EventStream>();
    portable::<Events>();
    portable::<Subscription>();
    portable::<DomainEvent>();
    portable::<Domain>();
    portable::<Error>();
    portable::<End>();
    portable::<Health>();
    portable::<Status>();
    portable::<Options>();
    portable::<Kind>();
    portable::<Capabilities>();
    portable::<Counters>();
    portable::<DomainStore>();
    portable::<Snapshot>();
    portable::<Changed>();
    portable::<Transition>();
    portable::<Merged>();
    portable::<MergedItem>();
    portable::<Driver>();
    portable::<Reconnect>();
}

#[test]
fn streams_are_fused() {
    fused::<EventStream>();
    fused::<Events>();
}

#[test]
fn a_source_is_object_safe_and_lives_behind_pointers() {
    source::<dyn EventSource>();
    source::<Arc<dyn EventSource>>();
    source::<Box<dyn EventSource>>();
    source::<Driver>();
}
