//! The event bus: carries what the outbox holds to its consumers.
//!
//! What it promises, whichever implementation runs (`tests/bus_conformance.rs`
//! checks these very sentences over both):
//!
//! * Every event of the outbox reaches every consumer at least once, however
//!   often the node or the bus is stopped or killed in between.
//! * The first occurrences of the events of one entity and topic come in the
//!   order of their numbers, without gaps.
//! * A consumer acts on an event once: a repetition, at or below its mark for
//!   the entity and topic, is dropped.
//! * An event behind a gap waits until the gap is filled; events of other
//!   entities do not.
//! * Waiting rooms are told of each purchase, and of each hold under a pass, at
//!   least once, and not before it is durable.
//! * An event that a consumer can't act on (poison) becomes a dead letter, with
//!   the reason, and the events behind it go on. Handed to its consumer again,
//!   it is acted on, or stays dead with the new reason.
//! * Sales don't depend on it: while it is out of reach the outbox grows, and
//!   is then delivered in order.
//!
//! [`relay`]: from the outbox to the bus. [`inprocess`] and [`kafka`]: the
//! implementations. [`tickets`]: the consumer that issues tickets. [`notices`]:
//! that which tells waiting rooms. [`message`]: the form in which an event travels,
//! described in `docs/events.md`.

pub mod inprocess;
pub mod kafka;
pub mod message;
pub mod notices;
mod parked;
pub mod relay;
pub mod tickets;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::store::dead_letters::DeadLetter;
use super::store::outbox::Envelope;
use super::{Store, StoreError};
use crate::clock::Clock;
use crate::config;
use crate::domain::ids::ShardId;
use crate::telemetry;
use crate::trace::{self, Kind, Span};
use kafka::consumer::{Consumer, Subscriber};
use notices::{QueueNotices, Tell};
use relay::Relay;
use tickets::TicketIssue;

/// Where orders are published.
pub use super::rows::{COUPONS_TOPIC, ORDERS_TOPIC};

/// Every topic that events are published to.
pub const TOPICS: &[&str] = &[
    ORDERS_TOPIC,
    "onsale.seats",
    "onsale.tickets",
    COUPONS_TOPIC,
    "onsale.queue",
    "onsale.notifications",
];

/// How long the end of the bus waits for what is under way.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Which shards' outbox this node relays: `None` is all of them. Asked again
/// for each pass, since shards come and go.
pub type Owned = Arc<dyn Fn() -> Option<Vec<ShardId>> + Send + Sync>;

/// Why the bus did not take or deliver an event now. It will be tried again.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A waiting room can't be told now, because its store is away.
    #[error("a waiting room can't be told now: the store is away")]
    QueuesAway,
    /// The broker.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The broker did not answer in time.
    #[error("Kafka did not answer within {} s", .0.as_secs())]
    Late(Duration),
}

impl BusError {
    /// Whether the store is away, which ends by itself.
    fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::QueuesAway => true,
            Self::Kafka(_) | Self::Late(_) => false,
        }
    }
}

/// What the bus is started with.
pub struct Options {
    /// The truth: the outbox, the marks of the consumers, the tickets.
    pub store: Store,
    /// What time it is.
    pub clock: Clock,
    /// The name of the key that signs tickets, later, when they are read.
    pub ticket_kid: String,
    /// The node, for ever: its membership of consumer groups goes by it.
    pub node: String,
    /// Which shards' outbox is relayed.
    pub owned: Owned,
    /// Told when a commit may have filled the outbox.
    pub wake: Arc<Notify>,
    /// Tells waiting rooms of what their visitors did.
    pub tell_queue: Tell,
}

/// A span for each of `events` whose trace is recorded: until it is dropped,
/// something is done with them.
fn begin_spans(
    name: &'static str,
    kind: Kind,
    part: &'static str,
    events: &[Envelope],
) -> Vec<Span> {
    if !trace::is_on() {
        return Vec::new();
    }
    let begin = |event: &Envelope| {
        let mut span = Span::begin(name, kind, event.trace.as_deref());
        if span.is_recorded() {
            span.tell("onsale.part", part);
            span.tell("messaging.destination.name", event.topic.clone());
            span.tell("messaging.message.id", event.event_id.to_string());
            span.tell("onsale.event", event.kind.clone());
        }
        span
    };
    events.iter().map(begin).filter(Span::is_recorded).collect()
}

/// The bus, while it runs.
#[derive(Debug)]
pub struct Bus {
    tickets: TicketIssue,
    stop: watch::Sender<bool>,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl Bus {
    /// Starts the bus that the settings ask for: Kafka if it has brokers, else
    /// the one in this process. Never waits for Kafka: what it can't do now, it
    /// does once the brokers answer.
    ///
    /// # Errors
    /// Settings that Kafka's client doesn't take.
    pub fn start(settings: &config::Kafka, options: Options) -> Result<Self, BusError> {
        let Options {
            store,
            clock,
            ticket_kid,
            node,
            owned,
            wake,
            tell_queue,
        } = options;
        telemetry::bus_began(TOPICS);
        let (stop, stopped) = watch::channel(false);
        let tickets = TicketIssue::new(store.clone(), clock.clone(), ticket_kid);
        let notices = QueueNotices::new(tell_queue);
        let relay = |to| Relay {
            store,
            clock,
            owned,
            to,
        };
        let tasks = if settings.brokers.is_empty() {
            let bus = inprocess::InProcess::new(notices, tickets.clone());
            let to = relay::To::InProcess(bus);
            vec![tokio::spawn(relay(to).run(wake, stopped))]
        } else {
            let cluster = kafka::Cluster::new(settings, &node);
            let to = relay::To::Kafka(kafka::producer::Producer::new(cluster.clone())?);
            let subscribers = [
                Subscriber::Tickets(tickets.clone()),
                Subscriber::Queues(notices),
            ];
            let consumers = subscribers.map(|subscriber| {
                let consumer = Consumer::new(cluster.clone(), subscriber, stopped.clone());
                tokio::spawn(consumer.run())
            });
            let mut tasks = Vec::from(consumers);
            tasks.push(tokio::spawn(relay(to).run(wake, stopped)));
            tasks
        };
        Ok(Self {
            tickets,
            stop,
            tasks: parking_lot::Mutex::new(tasks),
        })
    }

    /// Hands a dead letter to its consumer again. Once this returns, either the
    /// consumer has acted on it and it is no longer listed, or it is dead with
    /// the reason that is returned. `None` if there is no such letter.
    ///
    /// # Errors
    /// If the store can't be written; nothing has changed then.
    pub async fn requeue(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        self.tickets.requeue(id).await
    }

    /// Ends what runs, in an orderly way.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for mut task in tasks {
            if tokio::time::timeout(STOP_MAX, &mut task).await.is_err() {
                tracing::warn!(
                    "the event bus did not end in time; what it had not done, it does after the next start"
                );
                task.abort();
            }
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}
