//! A consumer of orders as a member of its consumer group. Its positions are
//! noted in Kafka only after what came before them is done with; what comes twice
//! is told by ticket issue's marks in the store, and does no harm to queues.

use std::time::Duration;

use futures_util::FutureExt;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::producer::DeadTopic;
use super::{Cluster, Voice};
use crate::persistence::bus::message;
use crate::persistence::bus::notices::{self, QueueNotices};
use crate::persistence::bus::parked::{At, Parked};
use crate::persistence::bus::tickets::{self, TicketIssue};
use crate::persistence::bus::{BusError, ORDERS_TOPIC};
use crate::persistence::store::outbox::Envelope;
use crate::telemetry;

/// How many messages are acted on in one transaction.
const BATCH_MAX: usize = 512;

/// A member that the brokers haven't heard of for so long is gone; one that
/// comes back under its id before gets its partitions back at once.
const SESSION_MS: u32 = 6_000;

/// How long the consumer waits after a failure.
const BACKOFF: Duration = Duration::from_secs(1);

/// How long an outage of the store may last before the consumer leaves its
/// partitions; below the 5 minutes after which the brokers take them away.
const STORE_OUTAGE_MAX: Duration = Duration::from_secs(60);

/// How often the lag is counted.
const STATISTICS_MS: u32 = 5_000;

/// Who acts on orders.
#[derive(Debug)]
pub(in crate::persistence::bus) enum Subscriber {
    /// Issues their tickets.
    Tickets(TicketIssue),
    /// Tells the waiting rooms of their buyers.
    Queues(QueueNotices),
}

impl Subscriber {
    fn name(&self) -> &'static str {
        match self {
            Self::Tickets(_) => tickets::CONSUMER,
            Self::Queues(_) => notices::CONSUMER,
        }
    }

    /// Acts on events; tells of each whether it is done with.
    async fn take(
        &self,
        events: &[Envelope],
        dead_topic: &DeadTopic,
    ) -> Result<Vec<bool>, BusError> {
        match self {
            Self::Tickets(tickets) => tickets.take(events.to_vec(), Some(dead_topic)).await,
            Self::Queues(notices) => {
                notices.take(events).await?;
                Ok(vec![true; events.len()])
            }
        }
    }

    /// Buries what is no event; ticket issue does it for all.
    async fn bury(
        &self,
        source: String,
        body: String,
        reason: String,
        dead_topic: &DeadTopic,
    ) -> Result<(), BusError> {
        match self {
            Self::Tickets(tickets) => tickets.bury(source, body, reason, dead_topic).await,
            Self::Queues(_) => Ok(()),
        }
    }
}

/// Reads orders for its subscriber.
pub(in crate::persistence::bus) struct Consumer {
    cluster: Cluster,
    subscriber: Subscriber,
    stopped: watch::Receiver<bool>,
}

/// What came with one message.
enum Came {
    Event(At, Envelope),
    Garbage {
        at: At,
        source: String,
        body: String,
        reason: String,
    },
}

impl Consumer {
    pub(in crate::persistence::bus) fn new(
        cluster: Cluster,
        subscriber: Subscriber,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            cluster,
            subscriber,
            stopped,
        }
    }

    /// Reads until it is told to stop. A failure begins it anew, from what is
    /// noted in Kafka.
    pub(in crate::persistence::bus) async fn run(self) {
        let mut stopped = self.stopped.clone();
        let mut is_failing = false;
        loop {
            let failed = tokio::select! {
                failed = self.read(&mut is_failing) => failed,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            if let Err(error) = failed {
                // Once an outage, not once an attempt.
                if is_failing {
                    tracing::debug!(%error, "orders still can't be read from Kafka");
                } else {
                    tracing::warn!(%error, "orders can't be read from Kafka, trying on");
                    is_failing = true;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(BACKOFF) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn read(&self, is_failing: &mut bool) -> Result<(), BusError> {
        self.cluster.make_topics().await?;
        let dead_topic = DeadTopic::new(self.cluster.clone())?;
        let voice = self.cluster.voice(self.subscriber.name());
        let consumer = Closing::new(self.join(voice.clone())?);
        let topic = self.cluster.name_of(ORDERS_TOPIC);
        consumer.get().subscribe(&[&topic])?;
        let mut parked = Parked::default();
        loop {
            let batch = next_batch(consumer.get()).await?;
            parked.forget(&std::mem::take(&mut *voice.lost.lock()));
            self.act(batch, &mut parked, &dead_topic).await?;
            if std::mem::take(is_failing) {
                tracing::info!("orders are read from Kafka again");
            }
            self.cluster.is_up();
            note(consumer.get(), &topic, &parked)?;
            for at in parked.read_again() {
                let offset = Offset::Offset(at.offset);
                consumer
                    .get()
                    .seek(&topic, at.partition, offset, Duration::ZERO)?;
            }
            #[allow(clippy::cast_precision_loss, reason = "a metric")]
            metrics::gauge!(telemetry::CONSUMER_WAITING_EVENTS, "consumer" => self.subscriber.name())
                .set(parked.len() as f64);
        }
    }

    fn join(&self, voice: Voice) -> Result<StreamConsumer<Voice>, BusError> {
        let config = self
            .cluster
            .config()
            .set(
                "group.id",
                self.cluster.name_of("onsale.") + self.subscriber.name(),
            )
            .set("group.instance.id", &self.cluster.node)
            .set("session.timeout.ms", SESSION_MS.to_string())
            .set("heartbeat.interval.ms", (SESSION_MS / 4).to_string())
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            // Only what a transaction left behind is skipped; ours have none.
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", "16384")
            .set("statistics.interval.ms", STATISTICS_MS.to_string())
            .clone();
        Ok(StreamConsumer::from_config_and_context(&config, voice)?)
    }

    /// Acts on a batch, and on what has waited for it.
    async fn act(
        &self,
        batch: Vec<Came>,
        parked: &mut Parked,
        dead_topic: &DeadTopic,
    ) -> Result<(), BusError> {
        let mut events: Vec<(At, Envelope)> = Vec::with_capacity(batch.len());
        for came in batch {
            match came {
                Came::Event(at, event) => {
                    parked.seen(at);
                    events.extend(parked.of(event.entity, &event.topic));
                    events.push((at, event));
                }
                Came::Garbage {
                    at,
                    source,
                    body,
                    reason,
                } => {
                    tracing::error!(source, reason, "a message can't be read, it is dead");
                    self.subscriber
                        .bury(source, body, reason, dead_topic)
                        .await?;
                    parked.seen(at);
                }
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        // By number: what filled a gap comes before what waited for it.
        events.sort_by(|(_, a), (_, b)| {
            (a.entity, &a.topic, a.event_seq).cmp(&(b.entity, &b.topic, b.event_seq))
        });
        let all: Vec<_> = events.iter().map(|(_, event)| event.clone()).collect();
        let done = self.take(&all, dead_topic).await?;
        for ((at, event), done) in events.into_iter().zip(done) {
            if !done {
                parked.keep(at, event);
            }
        }
        Ok(())
    }
}

impl Consumer {
    /// Has events acted on. An outage of the store is waited out for a while,
    /// so that it doesn't make partitions move.
    async fn take(
        &self,
        events: &[Envelope],
        dead_topic: &DeadTopic,
    ) -> Result<Vec<bool>, BusError> {
        let since = tokio::time::Instant::now();
        loop {
            let error = match self.subscriber.take(events, dead_topic).await {
                Err(error) if error.is_outage() && since.elapsed() < STORE_OUTAGE_MAX => error,
                other => return other,
            };
            tracing::debug!(%error, "orders can't be acted on now, trying on");
            tokio::time::sleep(BACKOFF).await;
        }
    }
}

/// Waits for a message and takes what else is there.
async fn next_batch(consumer: &StreamConsumer<Voice>) -> Result<Vec<Came>, BusError> {
    let mut batch = vec![came(&next(consumer).await?)];
    while batch.len() < BATCH_MAX {
        match consumer.recv().now_or_never() {
            Some(Ok(message)) => batch.push(came(&message)),
            // An error comes again, or is over.
            Some(Err(_)) | None => break,
        }
    }
    Ok(batch)
}

/// The next message. Outages of the brokers are waited out here: the client
/// goes on by itself.
async fn next(consumer: &StreamConsumer<Voice>) -> Result<BorrowedMessage<'_>, BusError> {
    use RDKafkaErrorCode as Code;
    loop {
        match consumer.recv().await {
            Ok(message) => return Ok(message),
            Err(KafkaError::MessageConsumption(
                Code::AllBrokersDown | Code::BrokerTransportFailure | Code::PollExceeded,
            )) => tokio::time::sleep(BACKOFF).await,
            Err(error) => return Err(error.into()),
        }
    }
}

fn came(message: &BorrowedMessage<'_>) -> Came {
    let at = At {
        partition: message.partition(),
        offset: message.offset(),
    };
    let body = String::from_utf8_lossy(message.payload().unwrap_or_default());
    let event = message::from_json(&body).and_then(|event| {
        // Its marks and its dead letters go by this name.
        if event.topic == ORDERS_TOPIC {
            Ok(event)
        } else {
            Err(format!(
                "an event of {:?} is in the wrong topic",
                event.topic
            ))
        }
    });
    match event {
        Ok(event) => Came::Event(at, event),
        Err(reason) => Came::Garbage {
            at,
            source: format!("{}/{}/{}", message.topic(), at.partition, at.offset),
            // Neither store takes NUL in a text.
            body: body.replace('\0', "\u{fffd}"),
            reason,
        },
    }
}

/// Notes in Kafka how far all is done with.
fn note(consumer: &StreamConsumer<Voice>, topic: &str, parked: &Parked) -> Result<(), BusError> {
    let mut positions = TopicPartitionList::new();
    for at in parked.offsets() {
        positions.add_partition_offset(topic, at.partition, Offset::Offset(at.offset))?;
    }
    if positions.count() > 0 {
        consumer.commit(&positions, CommitMode::Async)?;
    }
    Ok(())
}

/// A consumer that is closed on a thread where that may take a while.
struct Closing(Option<StreamConsumer<Voice>>);

impl Closing {
    fn new(consumer: StreamConsumer<Voice>) -> Self {
        Self(Some(consumer))
    }

    #[allow(clippy::expect_used, reason = "it is taken out only on drop")]
    fn get(&self) -> &StreamConsumer<Voice> {
        self.0.as_ref().expect("not dropped yet")
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let consumer = self.0.take();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(consumer))),
            Err(_) => drop(consumer),
        }
    }
}
