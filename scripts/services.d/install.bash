# Sourced by scripts/services and scripts/rules: installs what is missing. Debian 12.
# shellcheck shell=bash

# Prints the Debian packages that NAMES need and that are not there.
missing_packages() {
  local name
  for name in "$@"; do
    case $name in
      postgres) [ -x "$pg_bin/postgres" ] || echo postgresql-15 ;;
      pgbouncer) command -v pgbouncer >/dev/null || echo pgbouncer ;;
      promtool) command -v promtool >/dev/null || echo prometheus ;;
      amtool) command -v amtool >/dev/null || echo prometheus-alertmanager ;;
      python3) command -v python3 >/dev/null || echo python3 ;;
      chromium) command -v chromium >/dev/null || echo chromium ;;
      chromedriver) command -v chromedriver >/dev/null || echo chromium-driver ;;
      npm) command -v npm >/dev/null || echo npm ;;
      redis*) command -v redis-server >/dev/null || echo redis-server ;;
      kafka)
        command -v java >/dev/null || echo openjdk-17-jre-headless
        [ -e "$jars/complete" ] || command -v mvn >/dev/null || echo maven
        ;;
    esac
  done | sort -u
}

# Installs packages without the servers that Debian would start from them, and
# without its default Postgres cluster.
install_packages() {
  local sudo=() policy=/usr/sbin/policy-rc.d made_policy=
  if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
    sudo -n true 2>/dev/null || fail "missing packages; as root: apt-get install $*"
  fi
  say "installing $*"
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod 755 "$policy"
    made_policy=1
  fi
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    "${sudo[@]}" mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' |
      "${sudo[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  local done=0
  {
    "${sudo[@]}" apt-get update -qq &&
      "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        -o DPkg::Lock::Timeout=300 --no-install-recommends "$@"
  } >"$root/apt.log" 2>&1 || done=$?
  [ -z "$made_policy" ] || "${sudo[@]}" rm -f "$policy"
  [ "$done" = 0 ] || fail "apt-get failed: $(tail -n 5 "$root/apt.log")"
}

# Kafka isn't packaged: its jars come from Maven Central, once.
fetch_kafka() {
  [ ! -e "$jars/complete" ] || return 0
  mkdir -p "$jars"
  # Other folders' scripts share them.
  exec 7>"$jars.lock"
  flock -w 600 7 || fail "another process fetches Kafka for too long ($jars.lock)"
  [ ! -e "$jars/complete" ] || return 0
  say "fetching Kafka $kafka_version"
  mvn -q -B -Dstyle.color=never -f "$here/services.d/kafka.xml" -Dkafka.version="$kafka_version" \
    dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars" \
    >"$root/maven.log" 2>&1 || fail "Maven failed: $(tail -n 5 "$root/maven.log")"
  chmod -R a+rX "${jars%/*}"
  touch "$jars/complete"
  exec 7>&-
}
