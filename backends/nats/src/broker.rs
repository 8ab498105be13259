//! The stream and the bucket of a fleet: created or checked, never altered.

use std::io;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, pull};
use async_nats::jetstream::stream::{self, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode, kv};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, HeaderMap};
use futures::StreamExt;
use tokio::time::timeout;
use virevent::{Error, ServerError};

use crate::state::BucketSnapshot;
use crate::subject;
use crate::uri::NatsUri;

/// What a stream that a relay creates keeps: a week, or a GiB.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const MAX_BYTES: i64 = 1 << 30;

/// The window in which the server drops a message with the same id: its default.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The longest wait for the next entry of a bucket that is read, before the rest is read one by one.
const STALL: Duration = Duration::from_millis(250);

/// The number of entries that are read one by one.
const MAX_TAIL: usize = 1 << 16;

/// The number of a bucket's entries that are read. Each is kept in memory.
const MAX_ENTRIES: usize = 1 << 20;

/// A connection to the broker, with the fleet's stream and bucket.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) context: jetstream::Context,
    pub(crate) stream: Stream,
    pub(crate) bucket: kv::Store,
}

/// Connects.
///
/// # Errors
/// The server is unreachable, or refuses.
pub(crate) async fn connect(uri: &NatsUri, options: ConnectOptions) -> Result<Client, Error> {
    options.name("virevent").connect(uri.server.clone()).await.map_err(|error| {
        let message = error.to_string();
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                Error::authentication(format!("{message}; give nats://user:password@server/stream"))
            }
            _ => Error::unreachable(
                &uri.endpoint,
                "is a nats-server with JetStream running there?",
                io::Error::other(message),
            ),
        }
    })
}

impl Broker {
    /// The stream and the bucket, which exist.
    ///
    /// # Errors
    /// One does not exist, or differs from what relays create.
    pub(crate) async fn find(client: Client, uri: &NatsUri) -> Result<Self, Error> {
        let context = jetstream::new(client);
        let bucket = format!("KV_{}", uri.bucket());
        let stream = find_stream(&context, &uri.stream).await?;
        let states = find_stream(&context, &bucket).await?;
        let (Some(mut stream), Some(mut states)) = (stream, states) else {
            let message = format!("there is no stream {:?} with its bucket", uri.stream);
            let mut error = ServerError::new("finding the stream", 404, message);
            error.help = "a relay creates both: start one";
            return Err(error.into());
        };
        let config = stream.info().await.map_err(|error| failed("stream info", &error))?;
        check_stream(&config.config)?;
        let config = states.info().await.map_err(|error| failed("bucket info", &error))?;
        check_bucket(&config.config)?;
        let bucket = context
            .get_key_value(uri.bucket())
            .await
            .map_err(|error| failed("finding the bucket", &error))?;
        Ok(Self { context, stream, bucket })
    }

    /// The same, and what does not exist is created.
    ///
    /// # Errors
    /// One differs from what relays create, or the server refuses.
    pub(crate) async fn find_or_create(client: Client, uri: &NatsUri) -> Result<Self, Error> {
        let context = jetstream::new(client.clone());
        if find_stream(&context, &uri.stream).await?.is_none() {
            // Of two relays that do this at the same time both succeed, since both ask for the same.
            let config = stream_config(uri);
            context
                .create_stream(config)
                .await
                .map_err(|error| failed("creating the stream", &error))?;
        }
        if find_stream(&context, &format!("KV_{}", uri.bucket())).await?.is_none() {
            context
                .create_stream(bucket_config(uri))
                .await
                .map_err(|error| failed("creating the bucket", &error))?;
        }
        Self::find(client, uri).await
    }

    /// A consumer of the stream's events from this place on.
    pub(crate) async fn events_from(
        &self,
        start: u64,
    ) -> Result<Consumer<pull::OrderedConfig>, Error> {
        let start_sequence = start.max(1);
        let config = pull::OrderedConfig {
            filter_subject: subject::ALL.into(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            ..Default::default()
        };
        let consumer = self.stream.create_consumer(config).await;
        consumer.map_err(|error| failed("creating a consumer", &error))
    }

    /// A consumer of the bucket's newest entries under these keys.
    pub(crate) async fn entries(&self, keys: &str) -> Result<Consumer<pull::OrderedConfig>, Error> {
        let config = pull::OrderedConfig {
            filter_subject: format!("{}{keys}", self.bucket.prefix),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..Default::default()
        };
        let consumer = self.bucket.stream.create_consumer(config).await;
        consumer.map_err(|error| failed("creating a consumer", &error))
    }

    /// Reads the bucket's entries under these keys: a prefix of its log.
    ///
    /// # Errors
    /// The connection is lost, or there are too many.
    pub(crate) async fn read_bucket(&self, keys: &str) -> Result<BucketSnapshot, Error> {
        let mut snapshot = BucketSnapshot::default();
        // nats-server 2.9 counts entries as pending that were replaced meanwhile, so that the number
        // may never be 0.
        let info = self.bucket.stream.get_info().await;
        let end = info.map_err(|error| failed("bucket info", &error))?.state.last_sequence;
        let consumer = self.entries(keys).await?;
        let mut pending = consumer.cached_info().num_pending;
        let mut messages =
            consumer.messages().await.map_err(|error| failed("reading the bucket", &error))?;
        let mut count = 0;
        let mut last = 0;
        while pending > 0 && last < end {
            let message = match timeout(STALL, messages.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Err(failed("reading the bucket", &error)),
                // The last entry before the end was replaced.
                Ok(None) | Err(_) => break,
            };
            count += 1;
            if count > MAX_ENTRIES {
                return Err(Error::limit_exceeded("entries in the bucket", MAX_ENTRIES));
            }
            let info = message.info().map_err(|error| Error::protocol(error.to_string()))?;
            pending = info.pending;
            last = info.stream_sequence;
            if let Some(key) = self.key(&message.subject, message.headers.as_ref()) {
                snapshot.take(key, &message.payload);
            }
        }
        self.read_tail(keys, last, &mut snapshot).await?;
        Ok(snapshot)
    }

    /// Reads the entries behind this place, one by one, until there is none: those that were
    /// replaced while the bucket was read stand there. So what is read is a prefix of the log: an
    /// entry that is missing was removed before the status that is read, and that status says so.
    async fn read_tail(
        &self,
        keys: &str,
        mut last: u64,
        snapshot: &mut BucketSnapshot,
    ) -> Result<(), Error> {
        let filter = format!("{}{keys}", self.bucket.prefix);
        for _ in 0..MAX_TAIL {
            let stream = &self.bucket.stream;
            let message = match stream
                .raw_message_builder()
                .sequence(last + 1)
                .next_by_subject(filter.clone())
                .send()
                .await
            {
                Ok(message) => message,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                    return Ok(());
                }
                Err(error) => return Err(failed("reading the bucket", &error)),
            };
            last = message.sequence;
            if let Some(key) = self.key(&message.subject, Some(&message.headers)) {
                snapshot.take(key, &message.payload);
            }
        }
        Err(Error::protocol("the bucket changes faster than it can be read"))
    }

    /// The key of an entry; `None` for a marker of a deletion.
    pub(crate) fn key<'a>(&self, subject: &'a str, headers: Option<&HeaderMap>) -> Option<&'a str> {
        if headers.is_some_and(|headers| headers.get("KV-Operation").is_some()) {
            return None;
        }
        subject.strip_prefix(&*self.bucket.prefix)
    }

    /// The place of the newest message in the stream.
    pub(crate) async fn last_sequence(&self) -> Result<u64, Error> {
        let info = self.stream.get_info().await;
        Ok(info.map_err(|error| failed("stream info", &error))?.state.last_sequence)
    }
}

/// Microseconds since 1970: what a new epoch is at least.
pub(crate) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The error of a call that failed.
pub(crate) fn failed(call: &'static str, error: &dyn std::error::Error) -> Error {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    ServerError::new(call, 0, message).into()
}

async fn find_stream(context: &jetstream::Context, name: &str) -> Result<Option<Stream>, Error> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            jetstream::context::GetStreamErrorKind::JetStream(refused)
                if refused.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(failed("finding the stream", &error)),
        },
    }
}

fn stream_config(uri: &NatsUri) -> stream::Config {
    stream::Config {
        name: uri.stream.clone(),
        subjects: vec![subject::ALL.into()],
        max_age: MAX_AGE,
        max_bytes: MAX_BYTES,
        duplicate_window: DUPLICATE_WINDOW,
        ..Default::default()
    }
}

/// The stream of a key-value bucket, as NATS' own clients make it (ADR-8).
// Made by hand: async-nats' `create_key_value` asks for the account first, and cannot read what
// nats-server 2.9 answers to that.
fn bucket_config(uri: &NatsUri) -> stream::Config {
    stream::Config {
        name: format!("KV_{}", uri.bucket()),
        subjects: vec![format!("$KV.{}.>", uri.bucket())],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        duplicate_window: DUPLICATE_WINDOW,
        ..Default::default()
    }
}

/// Ages, sizes and replicas are the operator's choice; what correctness needs is checked.
fn check_stream(config: &stream::Config) -> Result<(), Error> {
    let is_wrong = if config.subjects != [subject::ALL] {
        "its only subject must be virevent.>"
    } else if config.retention != stream::RetentionPolicy::Limits {
        "its retention must be by limits"
    } else if config.discard != stream::DiscardPolicy::Old {
        "it must discard the old"
    } else if config.no_ack {
        "it must acknowledge"
    } else if config.duplicate_window < DUPLICATE_WINDOW {
        "its window for duplicates must be 2 minutes at least"
    } else if config.max_messages_per_subject > 0 {
        "it must not limit the messages of a subject"
    } else {
        return Ok(());
    };
    Err(unfit("stream", &config.name, is_wrong))
}

fn check_bucket(config: &stream::Config) -> Result<(), Error> {
    let is_wrong = if !config.max_age.is_zero() {
        "its entries must not expire"
    } else if config.max_messages_per_subject != 1 {
        "its history must be 1"
    } else {
        return Ok(());
    };
    Err(unfit("bucket", &config.name, is_wrong))
}

fn unfit(what: &'static str, name: &str, is_wrong: &str) -> Error {
    let message = format!("the {what} {name:?} is not as relays need it: {is_wrong}");
    let mut error = ServerError::new("checking the configuration", 0, message);
    error.help = "nothing was altered: change it, or use another stream";
    error.is_refusal = true;
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_differs_is_refused_and_limits_are_free() {
        let uri = NatsUri::parse("nats://h/fleet").unwrap();
        let good = stream_config(&uri);
        check_stream(&good).unwrap();
        let small =
            stream::Config { max_bytes: 1, max_age: Duration::from_secs(1), ..good.clone() };
        check_stream(&small).unwrap();
        let others = [
            stream::Config { subjects: vec!["x".into()], ..good.clone() },
            stream::Config { no_ack: true, ..good.clone() },
            stream::Config { duplicate_window: Duration::from_secs(1), ..good.clone() },
            stream::Config { max_messages_per_subject: 1, ..good.clone() },
            stream::Config { discard: stream::DiscardPolicy::New, ..good.clone() },
            stream::Config { retention: stream::RetentionPolicy::WorkQueue, ..good },
        ];
        for other in others {
            assert!(check_stream(&other).unwrap_err().is_refusal());
        }
    }
}
