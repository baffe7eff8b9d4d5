//! Checkpoints in Redis: a single server or a cluster.
//!
//! Every write is a script, so that the check of the fence and the change are
//! one step. All keys of a shard have the hash tag `{sN}`: a script finds them
//! on one node, and the shards spread over a cluster.
//!
//! | key | type | what |
//! |---|---|---|
//! | `P:{sN}:fence` | string | the lowest epoch that may write |
//! | `P:{sN}:entities` | set | the entities that may have a checkpoint |
//! | `P:{sN}:KIND:ID` | hash | `upto`, and a field `r` + row id for each row: stamp (16 bytes), body |
//!
//! Commands go out one by one on one connection, which pipelines them.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, RedisResult};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Base, Checkpoint, CheckpointError, Delta, Outcome, Row, RowId};
use crate::domain::ids::{Activation, EntityId, EntityKind, Epoch, Seq, ShardId, Stamp};

/// How long a server may take to be connected to, and to answer.
const CONNECT_MAX: Duration = Duration::from_millis(500);
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// How long a cluster may take altogether, with redirections.
const CLUSTER_ANSWER_MAX: Duration = Duration::from_millis(1_000);

/// How often a cluster's redirection is followed.
const REDIRECTIONS_MAX: u32 = 3;

/// How many commands are under way at once.
const COMMANDS_MAX: usize = 1_024;

/// What nobody wrote for so long is of no use to anybody: the database has it.
const KEPT_SECONDS: u32 = 7 * 24 * 3_600;

/// KEYS: fence, hash, set of entities. ARGV: epoch, version, base (empty: all
/// rows follow), name of the entity, seconds to keep, how many rows to put,
/// those as field and value, then the fields to remove. Versions are 32
/// hexadecimal digits: they compare as text. The first 16 name the life.
const WRITE: &str = r"
local fence = redis.call('GET', KEYS[1])
if not fence then return 'NOFENCE' end
if tonumber(fence) > tonumber(ARGV[1]) then return 'FENCED' end
local mine, base = ARGV[2], ARGV[3]
local upto = redis.call('HGET', KEYS[2], 'upto')
if upto and upto >= mine then
  if string.sub(upto, 1, 16) == string.sub(mine, 1, 16) then return 'WRITTEN' end
  return 'FENCED'
end
if base == '' then
  redis.call('UNLINK', KEYS[2])
  redis.call('SADD', KEYS[3], ARGV[4])
  redis.call('EXPIRE', KEYS[3], ARGV[5])
elseif upto ~= base then
  return 'NOBASE'
end
if tonumber(fence) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
local puts = 6 + 2 * tonumber(ARGV[6])
for at = 7, puts, 2 do redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1]) end
for at = puts + 1, #ARGV do redis.call('HDEL', KEYS[2], ARGV[at]) end
redis.call('HSET', KEYS[2], 'upto', mine)
redis.call('EXPIRE', KEYS[2], ARGV[5])
return 'WRITTEN'
";

/// KEYS: fence. ARGV: epoch. Returns the fence as it is then.
const RAISE: &str = r"
local fence = redis.call('GET', KEYS[1])
if fence and tonumber(fence) >= tonumber(ARGV[1]) then return tonumber(fence) end
redis.call('SET', KEYS[1], ARGV[1])
return tonumber(ARGV[1])
";

/// Checkpoints in Redis.
#[derive(Debug)]
pub struct RedisCheckpoints {
    prefix: String,
    servers: Servers,
    connection: Mutex<Option<Connection>>,
    write: Script,
    raise: Script,
}

#[derive(Debug)]
struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        let hash = redis::Script::new(text).get_hash().to_owned();
        Self { text, hash }
    }
}

enum Servers {
    Single(Client),
    Cluster(Box<ClusterClient>),
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Their addresses may carry a password.
        f.write_str(match self {
            Self::Single(_) => "Single",
            Self::Cluster(_) => "Cluster",
        })
    }
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    async fn send<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let value = match self {
            Self::Single(single) => single.req_packed_command(command).await?,
            Self::Cluster(cluster) => cluster.req_packed_command(command).await?,
        };
        Ok(redis::from_redis_value(value.extract_error()?)?)
    }

    async fn run<T: FromRedisValue>(mut self, ask: Ask<'_>) -> RedisResult<T> {
        match ask {
            Ask::Command(command) => self.send(&command).await,
            Ask::Script(script, call) => {
                match self.send(&call.command("EVALSHA", &script.hash)).await {
                    // A server that doesn't know it, as after a fail-over, learns it.
                    Err(error) if error.code() == Some("NOSCRIPT") => {
                        self.send(&call.command("EVAL", script.text)).await
                    }
                    answer => answer,
                }
            }
        }
    }
}

/// What a server is asked.
enum Ask<'a> {
    Command(Cmd),
    Script(&'a Script, Call),
}

/// Keys and arguments of a script.
struct Call {
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(&self.keys);
        for argument in &self.arguments {
            command.arg(argument.as_slice());
        }
        command
    }
}

impl RedisCheckpoints {
    /// Checkpoints on the servers at `urls` (several: a cluster), under keys
    /// that begin with `prefix`. Nothing is connected to yet.
    ///
    /// # Errors
    /// If an address can't be understood.
    pub fn new(urls: &[String], prefix: &str) -> Result<Self, CheckpointError> {
        let servers = match urls {
            [url] => Servers::Single(Client::open(url.as_str()).map_err(unavailable)?),
            urls => {
                let cluster = ClusterClient::builder(urls.iter().map(String::as_str))
                    .retries(REDIRECTIONS_MAX)
                    .connection_timeout(CONNECT_MAX)
                    .response_timeout(ANSWER_MAX)
                    .overall_response_timeout(Some(CLUSTER_ANSWER_MAX))
                    .build();
                Servers::Cluster(Box::new(cluster.map_err(unavailable)?))
            }
        };
        Ok(Self {
            prefix: prefix.to_owned(),
            servers,
            connection: Mutex::new(None),
            write: Script::new(WRITE),
            raise: Script::new(RAISE),
        })
    }

    /// The connection that there is, or a new one.
    async fn connection(&self) -> RedisResult<Connection> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok(connection.clone());
        }
        let connection = match &self.servers {
            Servers::Single(client) => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT_MAX))
                    .set_response_timeout(Some(ANSWER_MAX));
                let connecting = client.get_multiplexed_async_connection_with_config(&config);
                Connection::Single(connecting.await?)
            }
            Servers::Cluster(client) => {
                let connecting = client.get_async_connection();
                let connected = tokio::time::timeout(2 * CLUSTER_ANSWER_MAX, connecting).await;
                Connection::Cluster(
                    connected.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??,
                )
            }
        };
        *kept = Some(connection.clone());
        Ok(connection)
    }

    /// Asks everything at once, at most [`COMMANDS_MAX`] at a time. After an
    /// error the connection is not used again: the server may have failed over,
    /// or hang.
    async fn all<T: FromRedisValue>(&self, asks: Vec<Ask<'_>>) -> Result<Vec<T>, CheckpointError> {
        let mut answers = Vec::with_capacity(asks.len());
        let mut asks = asks.into_iter();
        while asks.len() > 0 {
            let connection = self.connection().await.map_err(unavailable)?;
            let some = asks.by_ref().take(COMMANDS_MAX);
            let asked: Vec<_> = some.map(|ask| connection.clone().run(ask)).collect();
            for answer in join_all(asked).await {
                match answer {
                    Ok(answer) => answers.push(answer),
                    Err(error) => {
                        *self.connection.lock().await = None;
                        return Err(unavailable(error));
                    }
                }
            }
        }
        Ok(answers)
    }

    pub(super) async fn write(&self, deltas: &[Delta]) -> Result<Vec<Outcome>, CheckpointError> {
        let calls = deltas.iter().map(|delta| self.call(delta));
        let outcomes: Vec<String> = self
            .all(calls.map(|call| Ask::Script(&self.write, call)).collect())
            .await?;
        let outcome = |name: &String| match name.as_str() {
            "WRITTEN" => Ok(Outcome::Written),
            "FENCED" => Ok(Outcome::Fenced),
            "NOFENCE" => Ok(Outcome::NoFence),
            "NOBASE" => Ok(Outcome::NoBase),
            other => Err(CheckpointError::Unreadable(format!("the outcome {other}"))),
        };
        outcomes.iter().map(outcome).collect()
    }

    fn call(&self, delta: &Delta) -> Call {
        let shard = delta.entity.shard();
        let keys = vec![
            self.key(shard, "fence"),
            self.key(shard, &name_of(delta.entity)),
            self.key(shard, "entities"),
        ];
        let base = match delta.base {
            Base::Whole => String::new(),
            Base::After(stamp) => digits(stamp),
        };
        let puts = delta.rows().filter(|(_, body)| body.is_some()).count();
        let mut arguments: Vec<Vec<u8>> = [
            delta.after.epoch.0.to_string(),
            digits(delta.after),
            base,
            name_of(delta.entity),
            KEPT_SECONDS.to_string(),
            puts.to_string(),
        ]
        .map(String::into_bytes)
        .into();
        let stamp = bytes_of(delta.after);
        for (row, body) in delta.rows() {
            if let Some(body) = body {
                arguments.push(field(row));
                arguments.push([&stamp[..], body].concat());
            }
        }
        let gone = delta.rows().filter(|(_, body)| body.is_none());
        arguments.extend(gone.map(|(row, _)| field(row)));
        Call { keys, arguments }
    }

    pub(super) async fn read(
        &self,
        entity: EntityId,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        let key = self.key(entity.shard(), &name_of(entity));
        let mut read: Vec<Vec<(Vec<u8>, Vec<u8>)>> = self.all(vec![ask("HGETALL", key)]).await?;
        checkpoint_of(read.pop().unwrap_or_default())
    }

    pub(super) async fn entities(
        &self,
        shards: &[ShardId],
    ) -> Result<Vec<EntityId>, CheckpointError> {
        let keys = shards.iter().map(|shard| self.key(*shard, "entities"));
        let names: Vec<Vec<String>> = self
            .all(keys.map(|key| ask("SMEMBERS", key)).collect())
            .await?;
        // A name of a kind that this version doesn't know is another version's.
        Ok(names
            .iter()
            .flatten()
            .filter_map(|name| entity_named(name))
            .collect())
    }

    pub(super) async fn raise_fences(
        &self,
        shards: &[(ShardId, Epoch)],
    ) -> Result<Vec<Epoch>, CheckpointError> {
        let call = |(shard, epoch): &(ShardId, Epoch)| Call {
            keys: vec![self.key(*shard, "fence")],
            arguments: vec![epoch.0.to_string().into_bytes()],
        };
        let raises = shards
            .iter()
            .map(|shard| Ask::Script(&self.raise, call(shard)));
        let raised: Vec<u32> = self.all(raises.collect()).await?;
        Ok(raised.into_iter().map(Epoch).collect())
    }

    pub(super) async fn fences(
        &self,
        shards: &[ShardId],
    ) -> Result<Vec<Option<Epoch>>, CheckpointError> {
        let keys = shards.iter().map(|shard| self.key(*shard, "fence"));
        let fences: Vec<Option<u32>> = self.all(keys.map(|key| ask("GET", key)).collect()).await?;
        Ok(fences.into_iter().map(|fence| fence.map(Epoch)).collect())
    }

    fn key(&self, shard: ShardId, name: &str) -> String {
        format!("{}:{{s{shard}}}:{name}", self.prefix)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: RedisError) -> CheckpointError {
    CheckpointError::Unavailable(error.to_string())
}

fn ask(command: &str, key: String) -> Ask<'static> {
    let mut ask = redis::cmd(command);
    ask.arg(key);
    Ask::Command(ask)
}

fn name_of(entity: EntityId) -> String {
    format!("{}:{}", entity.kind.as_str(), entity.id.simple())
}

fn entity_named(name: &str) -> Option<EntityId> {
    let (kind, id) = name.split_once(':')?;
    let kind = EntityKind::named(kind)?;
    let id = Uuid::try_parse(id).ok()?;
    Some(EntityId { kind, id })
}

fn field(row: &RowId) -> Vec<u8> {
    [b"r", row.0.as_slice()].concat()
}

fn digits(stamp: Stamp) -> String {
    format!(
        "{:08x}{:08x}{:016x}",
        stamp.epoch.0, stamp.activation.0, stamp.seq.0
    )
}

fn bytes_of(stamp: Stamp) -> [u8; 16] {
    let life = u128::from(stamp.epoch.0) << 96 | u128::from(stamp.activation.0) << 64;
    (life | u128::from(stamp.seq.0)).to_be_bytes()
}

#[allow(clippy::cast_possible_truncation, reason = "the parts of a u128")]
fn stamp_of(number: u128) -> Stamp {
    Stamp {
        epoch: Epoch((number >> 96) as u32),
        activation: Activation((number >> 64) as u32),
        seq: Seq(number as u64),
    }
}

fn checkpoint_of(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Option<Checkpoint>, CheckpointError> {
    let unreadable = || CheckpointError::Unreadable("a field of a checkpoint".to_owned());
    let mut upto = None;
    let mut rows = Vec::with_capacity(fields.len());
    for (field, value) in fields {
        match field.split_first() {
            Some((b'r', id)) => {
                let (stamp, body) = value.split_first_chunk().ok_or_else(unreadable)?;
                rows.push(Row {
                    id: RowId(id.into()),
                    stamp: stamp_of(u128::from_be_bytes(*stamp)),
                    body: body.to_vec(),
                });
            }
            _ if field == b"upto" => {
                let digits = std::str::from_utf8(&value).map_err(|_| unreadable())?;
                let number = u128::from_str_radix(digits, 16).map_err(|_| unreadable())?;
                upto = Some(stamp_of(number));
            }
            _ => return Err(unreadable()),
        }
    }
    rows.sort_by_key(|row| row.stamp);
    Ok(upto.map(|upto| Checkpoint { upto, rows }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_text_and_as_bytes_as_they_do_as_versions() {
        let stamp = |epoch, activation, seq| Stamp {
            epoch: Epoch(epoch),
            activation: Activation(activation),
            seq: Seq(seq),
        };
        let ordered = [
            stamp(0, 0, 9),
            stamp(1, 1, 16),
            stamp(1, 2, 3),
            stamp(2, 1, 1),
            stamp(10, 1, 1),
            stamp(u32::MAX, u32::MAX, u64::MAX),
        ];
        for pair in ordered.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(digits(pair[0]) < digits(pair[1]));
            assert!(bytes_of(pair[0]) < bytes_of(pair[1]));
        }
        for one in ordered {
            assert_eq!(stamp_of(u128::from_be_bytes(bytes_of(one))), one);
        }
    }
}
