//! The bus that is a Kafka cluster.

pub mod consumer;
pub mod producer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::{BusError, TOPICS};
use crate::config;
use crate::telemetry;

/// What is added to a topic's name for its dead letters.
pub const DEAD_SUFFIX: &str = ".dead";

/// How long the brokers may take to make the topics.
const ADMIN_MAX: Duration = Duration::from_secs(10);

/// A client whose broker was away tries it again after so long at most.
const RECONNECT_MAX_MS: u32 = 1_000;

/// Which cluster, and how this node appears there.
#[derive(Clone, Debug)]
pub struct Cluster {
    settings: config::Kafka,
    node: String,
    /// Whether the brokers are known to be out of reach: told once, by all
    /// clients together.
    is_down: Arc<AtomicBool>,
}

impl Cluster {
    /// The cluster of the settings, for the node of this name.
    #[must_use]
    pub fn new(settings: &config::Kafka, node: &str) -> Self {
        Self {
            settings: settings.clone(),
            node: node.to_owned(),
            is_down: Arc::new(AtomicBool::new(false)),
        }
    }

    /// What a topic is called there.
    #[must_use]
    pub fn name_of(&self, topic: &str) -> String {
        format!("{}{topic}", self.settings.prefix)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.settings.brokers.join(","))
            .set("client.id", &self.node)
            .set("reconnect.backoff.max.ms", RECONNECT_MAX_MS.to_string())
            .set("socket.keepalive.enable", "true")
            .set("allow.auto.create.topics", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// Of the client that is called so.
    fn voice(&self, client: &'static str) -> Voice {
        Voice {
            client,
            is_down: Arc::clone(&self.is_down),
            lost: Arc::default(),
            topics: self.settings.prefix.clone(),
        }
    }

    /// The brokers have just answered.
    fn is_up(&self) {
        if self.is_down.swap(false, Ordering::Relaxed) {
            tracing::info!("Kafka answers again");
        }
    }

    /// Makes the topics that are missing. Those that are there stay as they
    /// are, whatever the number of their partitions.
    ///
    /// # Errors
    /// If the brokers can't be reached, or refuse.
    pub async fn make_topics(&self) -> Result<(), BusError> {
        let admin: AdminClient<Voice> = {
            use rdkafka::config::FromClientConfigAndContext;
            AdminClient::from_config_and_context(&self.config(), self.voice("admin"))?
        };
        let mut names: Vec<String> = TOPICS.iter().map(|topic| self.name_of(topic)).collect();
        names.push(self.name_of(super::ORDERS_TOPIC) + DEAD_SUFFIX);
        let replication = match i32::try_from(self.settings.replication).unwrap_or(0) {
            // The default of the brokers.
            0 => -1,
            number => number,
        };
        let partitions = i32::try_from(self.settings.partitions).unwrap_or(1);
        let topics: Vec<_> = names
            .iter()
            .map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(replication)))
            .collect();
        let options = AdminOptions::new().request_timeout(Some(ADMIN_MAX));
        let made = tokio::time::timeout(ADMIN_MAX, admin.create_topics(&topics, &options))
            .await
            .map_err(|_| BusError::Late(ADMIN_MAX))??;
        for topic in made {
            match topic {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    tracing::error!(topic, %code, "Kafka refuses to make a topic");
                    return Err(KafkaError::AdminOp(code).into());
                }
            }
        }
        self.is_up();
        Ok(())
    }
}

/// What Kafka's clients tell: an outage is logged once, not once an attempt.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    client: &'static str,
    is_down: Arc<AtomicBool>,
    /// Partitions that were taken away and of which the consumer hasn't heard.
    lost: Arc<parking_lot::Mutex<Vec<i32>>>,
    /// What all names of topics begin with.
    topics: String,
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "Kafka's client says");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(
                Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::RequestTimedOut,
            ) => {
                if !self.is_down.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, reason, "Kafka is out of reach: events wait in the outbox");
                }
            }
            _ => tracing::warn!(%error, reason, "Kafka's client has a problem"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        for (name, topic) in &statistics.topics {
            let lags = topic.partitions.values().map(|p| p.consumer_lag);
            // -1: of another member of the group.
            let lag: i64 = lags.filter(|lag| *lag >= 0).sum();
            let name = name.strip_prefix(&self.topics).unwrap_or(name).to_owned();
            #[allow(clippy::cast_precision_loss, reason = "a metric")]
            metrics::gauge!(
                telemetry::CONSUMER_LAG_EVENTS, "consumer" => self.client, "topic" => name
            )
            .set(lag as f64);
        }
    }
}

impl ConsumerContext for Voice {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(partitions) => {
                tracing::info!(
                    partitions = partitions.count(),
                    "partitions were taken away"
                );
                let gone = partitions.elements();
                self.lost.lock().extend(gone.iter().map(|p| p.partition()));
            }
            Rebalance::Assign(partitions) => {
                tracing::info!(partitions = partitions.count(), "got partitions to read");
            }
            Rebalance::Error(error) => {
                tracing::warn!(%error, "partitions can't be shared out");
            }
        }
    }

    fn commit_callback(&self, result: rdkafka::error::KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // What is done isn't done again: the marks are in the store.
            tracing::debug!(%error, "positions could not be noted in Kafka");
        }
    }
}
