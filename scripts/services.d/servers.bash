# Sourced by scripts/services: what each server is configured with, how it is
# run, and how one knows that it answers. All on the loopback address.
# shellcheck shell=bash

# The ports of a service; the first is the one that clients use.
ports_of() {
  case $1 in
    postgres) echo "$base" ;;
    pgbouncer) echo $((base + 1)) ;;
    redis) echo $((base + 2)) ;;
    kafka) echo $((base + 3)) $((base + 4)) ;;
    postgres-replica) echo $((base + 5)) ;;
    redis-cluster-*) echo $((base + 9 + ${1##*-})) $((base + 19 + ${1##*-})) ;;
  esac
}

port_of() { ports_of "$1" | cut -d ' ' -f 1; }

# Writes the configuration of a service into its folder.
configure() {
  case $1 in
    postgres) configure_postgres ;;
    postgres-replica) configure_postgres_replica ;;
    pgbouncer) configure_pgbouncer ;;
    redis) configure_redis redis ;;
    redis-cluster-*) configure_redis "$1" "cluster-enabled yes" "cluster-config-file nodes.conf" \
      "cluster-node-timeout 2000" "cluster-port $(ports_of "$1" | cut -d ' ' -f 2)" ;;
    kafka) configure_kafka ;;
  esac
}

configure_postgres() {
  if [ ! -e "$root/postgres/data/PG_VERSION" ]; then
    rm -rf "$root/postgres/data"
    printf '%s' "$pg_password" | own "$root/postgres/password"
    "${servant[@]}" "$pg_bin/initdb" -D "$root/postgres/data" -U onsale -E UTF8 --locale=C.UTF-8 \
      --auth=scram-sha-256 --pwfile="$root/postgres/password" >"$root/postgres/initdb.log" 2>&1 ||
      fail "initdb failed: $(tail -n 5 "$root/postgres/initdb.log")"
  fi
  # Durable as in production: what is measured and killed here must be.
  own "$root/postgres/data/postgresql.auto.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $(port_of postgres)
unix_socket_directories = ''
max_connections = 300
shared_buffers = '128MB'
fsync = on
synchronous_commit = on
full_page_writes = on
log_min_duration_statement = 1000
CONF
}

# A copy of `postgres` as it is now, which follows it from then on.
configure_postgres_replica() {
  if [ ! -e "$root/postgres-replica/data/PG_VERSION" ]; then
    rm -rf "$root/postgres-replica/data"
    PGPASSWORD=$pg_password "${servant[@]}" "$pg_bin/pg_basebackup" -D "$root/postgres-replica/data" \
      -h 127.0.0.1 -p "$(port_of postgres)" -U onsale -c fast -R >"$root/postgres-replica/copy.log" 2>&1 ||
      fail "postgres could not be copied: $(tail -n 5 "$root/postgres-replica/copy.log")"
    echo "port = $(port_of postgres-replica)" >>"$root/postgres-replica/data/postgresql.auto.conf"
  fi
}

configure_pgbouncer() {
  echo "\"onsale\" \"$pg_password\"" | own "$root/pgbouncer/users.txt"
  own "$root/pgbouncer/pgbouncer.ini" <<CONF
[databases]
* = host=127.0.0.1 port=$(port_of postgres)
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $(port_of pgbouncer)
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $root/pgbouncer/users.txt
admin_users = onsale
pool_mode = transaction
default_pool_size = 10
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
CONF
}

# NAME [LINE...]
configure_redis() {
  local name=$1
  shift
  {
    echo "bind 127.0.0.1"
    echo "port $(port_of "$name")"
    echo "dir $root/$name"
    # Nothing is kept: Onsale must be correct when Redis comes back empty.
    echo 'save ""'
    echo "appendonly no"
    echo "maxmemory 512mb"
    echo "maxmemory-policy noeviction"
    printf '%s\n' "$@"
  } | own "$root/$name/redis.conf"
}

configure_kafka() {
  own "$root/kafka/server.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((base + 4))
listeners=PLAINTEXT://127.0.0.1:$((base + 3)),CONTROLLER://127.0.0.1:$((base + 4))
advertised.listeners=PLAINTEXT://127.0.0.1:$((base + 3))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$root/kafka/data
num.partitions=1
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
CONF
  own "$root/kafka/log4j2.properties" <<CONF
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
CONF
  if [ ! -e "$root/kafka/data/meta.properties" ]; then
    rm -rf "$root/kafka/data"
    "${servant[@]}" "${kafka_java[@]}" kafka.tools.StorageTool format -t "$kafka_cluster" \
      -c "$root/kafka/server.properties" >"$root/kafka/format.log" 2>&1 ||
      fail "Kafka's folder could not be made: $(tail -n 5 "$root/kafka/format.log")"
  fi
}

# Sets `command` to what runs a service in the foreground.
command_of() {
  case $1 in
    postgres*) command=("$pg_bin/postgres" -D "$root/$1/data") ;;
    pgbouncer) command=(pgbouncer "$root/pgbouncer/pgbouncer.ini") ;;
    redis*) command=(redis-server "$root/$1/redis.conf") ;;
    kafka) command=("${kafka_java[@]}" kafka.Kafka "$root/kafka/server.properties") ;;
  esac
}

# Whether a service does what it is there for.
answers() {
  case $1 in
    postgres*) query "$1" "SELECT 1" ;;
    # Through the pooler, so this needs Postgres too.
    pgbouncer) query pgbouncer "SELECT 1" ;;
    redis*) [ "$(redis-cli -h 127.0.0.1 -p "$(port_of "$1")" ping 2>/dev/null)" = PONG ] ;;
    kafka) grep -q 'Kafka Server started' "$root/kafka/log" 2>/dev/null && ask_kafka ;;
  esac
}

# SERVICE SQL [DATABASE]
query() {
  PGPASSWORD=$pg_password PGCONNECT_TIMEOUT=5 psql -X -q -A -t -h 127.0.0.1 \
    -p "$(port_of "$1")" -U onsale -d "${3:-postgres}" -c "$2" 2>/dev/null
} </dev/null

# Sends an ApiVersions request; whatever comes back is an answer.
ask_kafka() {
  {
    printf '\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff' >&3
    [ "$(timeout 5 head -c 4 <&3 | wc -c)" = 4 ]
  } 3<>"/dev/tcp/127.0.0.1/$(port_of kafka)"
} 2>/dev/null

# What is to be done once a service answers.
finish_start() {
  case $1 in
    postgres)
      [ -n "$(query postgres "SELECT 1 FROM pg_database WHERE datname = 'onsale'")" ] ||
        query postgres "CREATE DATABASE onsale" >/dev/null ||
        fail "the database onsale could not be created"
      ;;
    redis-cluster-6) join_redis_cluster ;;
  esac
}

join_redis_cluster() {
  local name nodes=()
  for name in "${cluster[@]}"; do nodes+=("127.0.0.1:$(port_of "$name")"); done
  if ! cluster_is_whole; then
    redis-cli --cluster create "${nodes[@]}" --cluster-replicas 1 --cluster-yes \
      >"$root/redis-cluster-1/create.log" 2>&1 ||
      fail "the Redis cluster could not be made: $(tail -n 5 "$root/redis-cluster-1/create.log")"
  fi
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    ! cluster_is_whole || return 0
    sleep 0.1
  done
  fail "the Redis cluster did not become whole"
}

# Every node sees all slots served and all six nodes.
cluster_is_whole() {
  local name info
  for name in "${cluster[@]}"; do
    info=$(redis-cli -h 127.0.0.1 -p "$(port_of "$name")" cluster info 2>/dev/null) || return 1
    grep -q '^cluster_state:ok' <<<"$info" || return 1
    grep -q '^cluster_known_nodes:6' <<<"$info" || return 1
  done
}

# The signal that ends a service in good order.
stop_signal() { case $1 in postgres*) echo INT ;; *) echo TERM ;; esac }
