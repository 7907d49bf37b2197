#!/usr/bin/env bash
# The images are tested in real containers: start a Docker engine where none runs and we may, and find a base image.
#   engine.sh          see that both are there
#   engine.sh client   print the Docker client to build with
# DOCKER_HOST is honoured. The base image is always here as oatflow-base:python3.11.
set -euo pipefail
base=oatflow-base:python3.11

# A newer client builds only with its plugin for that; the one that comes with Debian's engine needs none.
client() {
  local candidate
  for candidate in ${DOCKER:-docker /usr/bin/docker}; do
    if DOCKER_BUILDKIT=1 "$candidate" build --help 2>/dev/null | grep -q -- --secret; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

answers() { docker=$(client) && "$docker" info >/dev/null 2>&1; }

may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install() {
  apt-get update -qq >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

start_engine() {
  if ! may_install || [ -n "${DOCKER_HOST:-}" ]; then
    echo "the images need a Docker engine that builds (BuildKit), and none answers${DOCKER_HOST:+ at $DOCKER_HOST};" \
      "start one first: https://docs.docker.com/engine/install" >&2
    exit 2
  fi
  echo "setting up: a Docker engine"
  client >/dev/null && command -v dockerd >/dev/null || install docker.io iptables
  answers && return
  setsid nohup dockerd --default-ulimit nofile=10000:10000 >/var/log/oatflow-dockerd.log 2>&1 </dev/null &
  for _ in $(seq 60); do answers && return; sleep 1; done
  echo "the Docker engine does not come up; the end of its log:" >&2
  tail -20 /var/log/oatflow-dockerd.log >&2
  exit 2
}

fetch_base() {
  echo "setting up: a base image with Python 3.11"
  if timeout 120 "$docker" pull -q python:3.11-slim >/dev/null 2>&1; then
    "$docker" tag python:3.11-slim $base
    return
  fi
  may_install || { echo "no registry answers; give a base image: docker tag YOUR_PYTHON_3.11 $base" >&2; exit 2; }
  command -v debootstrap >/dev/null || install debootstrap
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  local root=$scratch/root
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates,libnuma1 bookworm \
    "$root" >"$scratch/log" || { tail -20 "$scratch/log" >&2; exit 2; }
  # What this machine trusts, its images trust.
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
  tar -C "$root" -c . | "$docker" import - $base >/dev/null
}

if [ "${1:-}" = client ]; then
  client || { echo "no Docker client that builds (BuildKit) was found; see images/README.md" >&2; exit 2; }
  exit
fi
answers || start_engine
"$docker" image inspect $base >/dev/null 2>&1 || fetch_base
