//! Recordings, and their replay on paused time.

#![cfg(feature = "recordings")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::time::Instant;
use virevent::{DomainEvent, DomainStore, End, Error, EventSource, Kind, Options};
use virevent_testkit::{FakeHypervisor, Recording, RecordingError, Script, assert};

const HEADER: &str = "{\"format\":\"virevent-recording\",\"version\":1}\n";

/// Recorded from a real libvirtd 9.0 by `watch --record`, version 1 of the format; only the names of
/// its socket and host were replaced.
const LIBVIRTD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/libvirtd-v1.jsonl");

fn by_hand(lines: &[&str]) -> Recording {
    let mut text = HEADER.to_owned();
    for line in lines {
        text += &format!("{line}\n");
    }
    Recording::from_jsonl(text.as_bytes()).unwrap()
}

fn synced(after_us: u64, source: &str) -> String {
    format!(
        r#"{{"after_us":{after_us},"event":{{"kind":"synced","source":"{source}","domains":0}}}}"#
    )
}

/// A stream with an outage, a lag and two sources, recorded in code.
async fn troubled() -> Recording {
    let one = FakeHypervisor::builder().uri("fake:one").build();
    let two = FakeHypervisor::builder().uri("fake:two").build();
    one.create("web").unwrap();
    let start = Instant::now();
    let mut text = Recording::header().into_bytes();
    let options = Options::default().capacity(2);
    let mut first = one.subscribe_with(options.clone()).await.unwrap();
    let mut second = two.subscribe_with(options).await.unwrap();
    for step in 0..6 {
        match step {
            1 => one.go_down(),
            2 => drop(one.stop("web").unwrap()),
            3 => one.restore(),
            4 => {
                for _ in 0..20 {
                    two.create("db").unwrap();
                    two.stop("db").unwrap();
                }
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        for stream in [&mut first, &mut second] {
            while let Some(Some(event)) = stream.next().now_or_never() {
                Recording::write_line(&mut text, start.elapsed(), &event).unwrap();
            }
        }
    }
    Recording::from_jsonl(&text).unwrap()
}

/// What a replay delivers, with the times.
async fn replayed(recording: Recording, speed: f64) -> Vec<(Duration, DomainEvent)> {
    let source = recording.replay().speed(speed).unwrap();
    let start = Instant::now();
    let mut events = source.subscribe_with(Options::default()).await.unwrap();
    let mut replayed = Vec::new();
    while let Some(event) = events.next().await {
        replayed.push((start.elapsed(), event));
    }
    assert!(matches!(events.end(), Some(End::Shutdown)));
    replayed
}

/// Tokio's timer has milliseconds.
fn assert_times(replayed: &[(Duration, DomainEvent)], recording: &Recording, speed: f64) {
    for ((at, _), (after, _)) in replayed.iter().zip(recording.events()) {
        let due = after.div_f64(speed);
        assert!(*at >= due && *at <= due + Duration::from_millis(1), "{at:?} for {due:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_delivers_gaps_lags_and_sources_exactly() {
    let recording = troubled().await;
    let text: Vec<_> = recording.events().iter().map(|(_, event)| event.to_string()).collect();
    for part in ["disconnected from fake:one", "[inferred]", "missed", "synced with fake:two"] {
        assert!(text.iter().any(|line| line.contains(part)), "{part}: {text:?}");
    }
    let replayed = replayed(recording.clone(), 1.0).await;
    let events = |of: &[(Duration, DomainEvent)]| -> Vec<DomainEvent> {
        of.iter().map(|(_, event)| event.clone()).collect()
    };
    assert_eq!(events(&replayed), events(recording.events()));
    assert_times(&replayed, &recording, 1.0);
}

#[tokio::test(start_paused = true)]
async fn speed_divides_the_recorded_times() {
    let recording = troubled().await;
    for speed in [10.0, 0.5] {
        assert_times(&replayed(recording.clone(), speed).await, &recording, speed);
    }
}

#[test]
fn a_speed_out_of_range_is_refused() {
    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9] {
        let error = by_hand(&[]).replay().speed(speed).unwrap_err();
        assert!(error.to_string().contains("from 0.001"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recording_of_version_1_stays_readable() {
    let recording = Script::from_recording(LIBVIRTD).unwrap();
    let store = DomainStore::new();
    let replayed = replayed(recording.clone(), 1.0).await;
    replayed.iter().for_each(|(_, event)| drop(store.apply(event)));
    assert_eq!(replayed.len(), recording.events().len());
    let has = |part: &str| replayed.iter().any(|(_, event)| event.to_string().contains(part));
    for part in ["existing", "suspended", "stopped", "disconnected", "synced"] {
        assert!(has(part), "{part}");
    }
}

#[test]
fn unknown_fields_are_ignored_and_a_torn_last_line_too() {
    let header = HEADER.replace('}', ",\"host\":\"h\"}");
    let line = synced(5, "a:").replacen('{', "{\"later\":[1],", 1);
    let recording = Recording::from_jsonl(format!("{header}{line}\n{{\"after").as_bytes()).unwrap();
    assert_eq!(recording.events().len(), 1);
}

#[test]
fn a_later_version_is_an_error_that_says_what_to_do() {
    let later = HEADER.replace('1', "2");
    let error = Recording::from_jsonl(later.as_bytes()).unwrap_err();
    assert!(matches!(error, RecordingError::Version { found: 2 }));
    assert!(error.to_string().contains("use the virevent that made it"), "{error}");
}

#[test]
fn a_bad_line_names_its_number() {
    let good = synced(5, "a:");
    for bad in ["{", "", "[]", &synced(u64::MAX, "a:"), r#"{"after_us":1,"event":{"kind":"x"}}"#] {
        let text = format!("{HEADER}{good}\n{bad}\n{good}\n");
        let error = Recording::from_jsonl(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 3: "), "{error}");
    }
    for text in ["", "\n", "x", "{\"format\":\"other\",\"version\":1}\n"] {
        let error = Recording::from_jsonl(text.as_bytes()).unwrap_err();
        assert!(matches!(error, RecordingError::NotARecording), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_filter_and_existing_apply_to_a_replay() {
    let source = troubled().await.replay();
    let options = Options::default().existing(false).domain("db");
    let events = source.subscribe_with(options).await.unwrap();
    let events: Vec<_> = events.collect().await;
    let mut domains = events.iter().filter(|event| !event.is_marker());
    assert!(domains.all(|event| event.domain().unwrap().name() == "db"));
    assert!(events.iter().any(|event| event.domain().is_some()));
    let reboots = source.subscribe_with(Options::default().kind(Kind::Reboot)).await.unwrap();
    assert!(reboots.collect::<Vec<_>>().await.iter().all(DomainEvent::is_marker));
}

#[tokio::test(start_paused = true)]
async fn a_replay_refuses_to_resume() {
    let options = Options::default().resume(DomainStore::new().snapshot());
    let refused = by_hand(&[]).replay().subscribe_with(options).await.unwrap_err();
    assert!(refused.to_string().contains("a replay begins where its recording does"));
}

#[tokio::test(start_paused = true)]
async fn cancel_and_shutdown_end_a_replay_that_waits() {
    let source = by_hand(&[&synced(0, "a:"), &synced(60_000_000, "a:")]).replay();
    let start = Instant::now();
    let stream = source.subscribe_with(Options::default()).await.unwrap();
    let (mut events, subscription) = stream.split();
    assert!(events.next().await.is_some());
    let ((), next) = tokio::join!(subscription.close(), events.next());
    assert!(next.is_none() && matches!(events.end(), Some(End::Cancelled)));
    let mut stream = source.subscribe_with(Options::default()).await.unwrap();
    assert::until_synced(&mut stream).await.unwrap();
    let (next, ()) = tokio::join!(stream.next(), source.shutdown());
    assert!(next.is_none() && matches!(stream.end(), Some(End::Shutdown)));
    assert!(start.elapsed() < Duration::from_secs(1));
    let again = source.subscribe_with(Options::default()).await;
    assert!(matches!(again, Err(Error::Shutdown)));
}
