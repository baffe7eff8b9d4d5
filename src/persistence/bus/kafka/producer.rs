//! Publishes to Kafka: idempotent, in order, acknowledged by all replicas.

use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::Mutex;

use super::{Cluster, DEAD_SUFFIX, Voice};
use crate::persistence::bus::BusError;
use crate::persistence::bus::message;
use crate::persistence::bus::relay::RELAY_MAX;
use crate::persistence::store::dead_letters::NewDeadLetter;
use crate::persistence::store::outbox::Envelope;

/// How long the brokers may take to acknowledge what was published in one go.
const PUBLISH_MAX: Duration = Duration::from_secs(30);

/// The header that tells why a message is dead.
pub const REASON_HEADER: &str = "onsale-reason";

/// How many messages may wait in the client: never reached, since one go is
/// all that is under way.
const WAITING_MAX: u32 = 4 * RELAY_MAX;

/// One message.
struct Outgoing {
    topic: String,
    key: String,
    body: String,
    reason: Option<String>,
}

/// Publishes. Until all of one go is acknowledged, no other begins.
pub struct Producer {
    cluster: Cluster,
    /// `None`: the topics are not known to be there, or the last go was not
    /// acknowledged.
    client: Mutex<Option<FutureProducer<Voice>>>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// To this cluster, which need not be there yet.
    ///
    /// # Errors
    /// Settings that the client doesn't take.
    pub fn new(cluster: Cluster) -> Result<Self, BusError> {
        drop(connect(&cluster)?);
        Ok(Self {
            cluster,
            client: Mutex::new(None),
        })
    }

    /// Publishes `events`. Once this returns, all of them are on all replicas,
    /// in this order per entity.
    ///
    /// # Errors
    /// If the brokers can't be reached or refuse. Some may have been published;
    /// if all are published again, first occurrences stay in order.
    pub async fn publish(&self, events: &[Envelope]) -> Result<(), BusError> {
        let outgoing = events.iter().map(|event| Outgoing {
            topic: self.cluster.name_of(&event.topic),
            key: event.entity.to_string(),
            body: message::to_json(event),
            reason: None,
        });
        self.send(outgoing.collect()).await
    }

    async fn send(&self, outgoing: Vec<Outgoing>) -> Result<(), BusError> {
        let mut place = self.client.lock().await;
        // Taken out: dropped on any failure, with all that it still had to send,
        // so that nothing can come behind what is published next.
        let client = match place.take() {
            Some(client) => client,
            None => {
                self.cluster.make_topics().await?;
                connect(&self.cluster)?
            }
        };
        let sent = tokio::time::timeout(PUBLISH_MAX, send_all(&client, &outgoing))
            .await
            .unwrap_or(Err(BusError::Late(PUBLISH_MAX)));
        match sent {
            Ok(()) => {
                self.cluster.is_up();
                *place = Some(client);
                Ok(())
            }
            Err(error) => {
                // It waits for its thread.
                let _ = tokio::task::spawn_blocking(move || drop(client)).await;
                Err(error)
            }
        }
    }
}

fn connect(cluster: &Cluster) -> Result<FutureProducer<Voice>, BusError> {
    let config = cluster
        .config()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Messages never time out one by one, which would let later ones
        // overtake them: the deadline is that of the whole go.
        .set("message.timeout.ms", "0")
        .set("linger.ms", "1")
        .set("queue.buffering.max.messages", WAITING_MAX.to_string())
        .clone();
    Ok(FutureProducer::from_config_and_context(
        &config,
        cluster.voice("producer"),
    )?)
}

async fn send_all(client: &FutureProducer<Voice>, all: &[Outgoing]) -> Result<(), BusError> {
    let mut deliveries = Vec::with_capacity(all.len());
    for one in all {
        let mut record = FutureRecord::to(&one.topic)
            .key(&one.key)
            .payload(&one.body);
        if let Some(reason) = &one.reason {
            record = record.headers(OwnedHeaders::new().insert(Header {
                key: REASON_HEADER,
                value: Some(reason),
            }));
        }
        let delivery = client.send_result(record).map_err(|(error, _)| error)?;
        deliveries.push(delivery);
    }
    for delivery in join_all(deliveries).await {
        match delivery {
            Ok(Ok(_)) => {}
            Ok(Err((error, _))) => return Err(error.into()),
            Err(_) => return Err(KafkaError::Canceled.into()),
        }
    }
    Ok(())
}

/// Tells the topics of dead letters about them.
#[derive(Debug)]
pub struct DeadTopic(Producer);

impl DeadTopic {
    /// Through a client of its own, so that the relay doesn't wait for it.
    ///
    /// # Errors
    /// Settings that the client doesn't take.
    pub fn new(cluster: Cluster) -> Result<Self, BusError> {
        Ok(Self(Producer::new(cluster)?))
    }

    /// Once this returns, the topics have these letters.
    ///
    /// # Errors
    /// Those of [`Producer::publish`].
    pub async fn tell(
        &self,
        letters: impl Iterator<Item = &NewDeadLetter>,
    ) -> Result<(), BusError> {
        let outgoing: Vec<Outgoing> = letters
            .map(|letter| Outgoing {
                topic: self.0.cluster.name_of(&letter.topic) + DEAD_SUFFIX,
                key: letter.source.clone(),
                body: letter.body.clone(),
                reason: Some(letter.reason.clone()),
            })
            .collect();
        if outgoing.is_empty() {
            return Ok(());
        }
        self.0.send(outgoing).await
    }
}
