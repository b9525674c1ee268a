#!/usr/bin/env bash
# What launch.sh does on each host of a slice; it comes there with the archive.
#
#   worker.sh check_idle | setup BUCKET | run COMMAND... | logs | status | stop

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

VENV=$HOME/cai_jax_venv
FILES=$HOME/cai_jax_run   # log.txt, pid, exit_code
TOKEN=$HOME/cai_jax_token # of Hugging Face, where launch.sh has one

install_gcsfuse() {
  local key=/usr/share/keyrings/gcsfuse.asc repository
  repository="https://packages.cloud.google.com/apt gcsfuse-$(lsb_release --short --codename) main"
  curl --fail --silent --show-error https://packages.cloud.google.com/apt/doc/apt-key.gpg |
    sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] $repository" | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  # A new host updates itself at first and holds the lock meanwhile.
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 update
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 install gcsfuse
}

# Stages rename whole folders, which gcsfuse refuses without a limit; without the cache of metadata
# every host sees at once what another wrote.
mount_bucket() {
  if mountpoint --quiet "$MOUNT"; then
    return
  fi
  sudo mkdir -p "$MOUNT"
  sudo chown "$(id --user)" "$MOUNT"
  gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 "$1" "$MOUNT"
}

# Images of TPU VMs have Python 3.10, and cai_jax needs 3.11: uv brings one.
install_package() {
  curl --fail --silent --show-error --location https://astral.sh/uv/install.sh | sh
  "$HOME/.local/bin/uv" venv --quiet --clear --python 3.12 "$VENV"
  "$HOME/.local/bin/uv" pip install --quiet --python "$VENV/bin/python" --editable "${ROOT}[tpu]"
}

setup() {
  command -v gcsfuse >/dev/null || install_gcsfuse
  mount_bucket "$1"
  install_package
  say "$(hostname): set up"
}

alive() { [[ -f $FILES/pid ]] && kill -0 -- "-$(<"$FILES/pid")" 2>/dev/null; }

# Neither another run nor new code and packages may come under a run.
check_idle() {
  if alive; then
    die "$(hostname): a run is going on here; follow it with 'logs', or 'stop' it first"
  fi
}

take_token() {
  if [[ -f $TOKEN ]]; then
    HF_TOKEN=$(<"$TOKEN")
    export HF_TOKEN
    rm "$TOKEN"
  fi
}

run() {
  take_token
  check_idle
  if [[ ! -x $VENV/bin/python ]] || ! mountpoint --quiet "$MOUNT"; then
    die "$(hostname): not set up; run 'setup' first"
  fi
  mkdir -p "$FILES"
  rm -f "$FILES/exit_code"
  cd "$ROOT"
  export PATH=$VENV/bin:$PATH
  echo "== $(date --utc --iso-8601=seconds) $(quoted "$@")" >>"$FILES/log.txt"
  # In a session of its own, so that it outlives the connection and can be stopped as a whole.
  # shellcheck disable=SC2016
  nohup setsid bash -c '"$@"; echo $? >"$0/exit_code"' "$FILES" "$@" \
    >>"$FILES/log.txt" 2>&1 </dev/null &
  echo $! >"$FILES/pid"
  say "$(hostname): started"
}

outcome() {
  if alive; then
    echo running
  elif [[ ! -f $FILES/pid ]]; then
    echo "nothing was run"
  elif [[ -f $FILES/exit_code ]]; then
    echo "ended with exit code $(<"$FILES/exit_code")"
  else
    echo "ended without an exit code: stopped, or killed as when memory is short"
  fi
}

logs() {
  if [[ ! -f $FILES/pid ]]; then
    die "$(hostname): nothing was run here; run 'run' first"
  fi
  tail --lines=+1 --follow "--pid=$(<"$FILES/pid")" "$FILES/log.txt"
  say "$(hostname): $(outcome)"
  [[ -f $FILES/exit_code && $(<"$FILES/exit_code") == 0 ]]
}

stop() {
  local second
  if alive; then
    kill -TERM -- "-$(<"$FILES/pid")"
    for second in {1..30}; do
      alive || break
      sleep 1
    done
    if alive; then
      say "$(hostname): still there after $second s, killed"
      kill -KILL -- "-$(<"$FILES/pid")"
    fi
  fi
  say "$(hostname): $(outcome)"
}

case ${1:-} in
  setup | run) "$@" ;;
  check_idle | logs | stop) "$1" ;;
  status) echo "$(hostname): $(outcome)" ;;
  *) die "unknown step '${1:-}'; steps are check_idle, setup, run, logs, status, stop" ;;
esac
