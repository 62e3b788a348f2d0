#!/bin/bash
# Runs as root at every boot of a machine: the first, and each start after a stop. So every step
# looks first whether it is done. What it says goes to the serial port, where many can read it:
# no secret is ever printed.
set -euo pipefail

home=$(realpath -m "${SYMBIO_VM_HOME:-/var/lib/symbio}")
metadata="http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1"
storage=${STORAGE_EMULATOR_HOST:-https://storage.googleapis.com}
secrets=${SYMBIO_SECRETS_ENDPOINT:-https://secretmanager.googleapis.com}

say() { echo "symbio: $(date -u +%H:%M:%S) $*"; }

look() { curl -sf --retry 5 --retry-connrefused -H 'Metadata-Flavor: Google' "$metadata/$1"; }

attribute() { look "instance/attributes/$1" || true; }

token() {
  look instance/service-accounts/default/token | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p'
}

# The header goes in by a file descriptor, so that the token shows in no list of processes.
fetch() {
  curl -sf --retry 5 --retry-connrefused --config <(echo "header = \"Authorization: Bearer $(token)\"") "$@"
}

# Whatever ends this script ends the machine: one that computes nothing must not cost anything.
# The last of three layers against that is the cap on its life, which Google itself keeps.
give_up() {
  say "giving up: $1; see the lines above"
  sleep "${SYMBIO_VM_LAST_WORDS_S:-20}"
  if [ "$at_end" = delete ]; then
    local zone
    zone=$(look instance/zone) || zone=
    fetch -X DELETE "${SYMBIO_GCE_ENDPOINT:-https://compute.googleapis.com}/compute/v1/projects/$(look project/project-id)/zones/${zone##*/}/instances/$(look instance/name)" \
      >/dev/null || true
  fi
  shutdown -h now
  exit 1
}

get_code() {
  local file=$home/code/$code.tar.gz path
  mkdir -p "$home/code"
  if ! sha256sum --status -c <<<"$code  $file" 2>/dev/null; then
    say "fetching the code $code"
    path="${prefix:+$prefix/}code/$code.tar.gz"
    fetch -o "$file.part" "$storage/storage/v1/b/$bucket/o/${path//\//%2F}?alt=media" || return 1
    mv "$file.part" "$file" || return 1
    sha256sum --status -c <<<"$code  $file" || { rm "$file"; return 1; }
  fi
  if [ ! -e "$home/code/$code/.whole" ]; then
    mkdir -p "$home/code/$code"
    # Whoever asks for this function's success has switched `set -e` off inside it.
    tar -xzf "$file" -C "$home/code/$code" || return 1
    touch "$home/code/$code/.whole" || return 1
  fi
}

get_python() {
  if [ -n "${SYMBIO_VM_PYTHON:-}" ]; then
    python=$SYMBIO_VM_PYTHON
    return
  fi
  local lock
  lock=$(cat constraints.txt pyproject.toml | sha256sum | cut -c1-16)
  python=$home/venv-$lock/bin/python
  if [ ! -e "$home/venv-$lock/.whole" ]; then
    command -v python3.12 || command -v python3.11 || {
      say "installing Python 3.11"
      apt-get -qq update && apt-get -qq install -y python3.11 python3.11-venv
    }
    bash deployments/install.sh "$home/venv-$lock" orchestration,cloud,demo || return 1
    touch "$home/venv-$lock/.whole"
  fi
}

# The right to read a secret takes up to some minutes to hold after it was given.
read_secret() {
  local value left=${SYMBIO_VM_SECRET_TRIES:-18}
  while :; do
    value=$(fetch "$secrets/v1/$1:access" | sed -n 's/.*"data" *: *"\([^"]*\)".*/\1/p') || true
    left=$((left - 1))
    if [ -n "$value" ] || [ "$left" -le 0 ]; then
      echo "$value"
      return
    fi
    sleep 10
  done
}

# One attribute a secret: symbio-secret-NAME holds where in Secret Manager the value of NAME lies.
get_secrets() {
  local name where value
  for name in $(attribute '' | sed -n 's/^symbio-secret-//p'); do
    where=$(attribute "symbio-secret-$name")
    case $where in */versions/*) ;; *) where=$where/versions/latest ;; esac
    value=$(read_secret "$where")
    [ -n "$value" ] || { say "secret $where cannot be read"; return 1; }
    value=$(base64 -d <<<"$value") || { say "secret $where is damaged"; return 1; }
    export "$name=$value"
    say "secret $name is there"
  done
}

at_end=$(attribute symbio-at-end)
root=$(attribute symbio-root)
code=$(attribute symbio-code)
bucket=${root#gs://} && bucket=${bucket%%/*}
prefix=${root#gs://"$bucket"} && prefix=${prefix#/}
say "boot for run $(attribute symbio-run)"

get_code || give_up "the code cannot be fetched, or is not what was stored"
cd "$home/code/$code" || give_up "the code is gone"
get_python || give_up "the packages cannot be installed"
get_secrets || give_up "a secret is missing"

export PREFECT_API_URL PREFECT_HOME=$home/prefect PWD DO_NOT_TRACK=1
export PREFECT_WORKER_QUERY_SECONDS=${PREFECT_WORKER_QUERY_SECONDS:-5}
PREFECT_API_URL=$(attribute symbio-prefect-url)
say "starting the worker and its watchdog"
"$python" -m deployments.vm.watchdog --home "$home" || give_up "the watchdog failed"
