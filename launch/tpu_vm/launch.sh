#!/usr/bin/env bash
# Runs cai_jax on a Cloud TPU slice, of one host or many, through queued resources.
#
#   launch/tpu_vm/launch.sh STEP [--dry_run] [--SETTING=VALUE ...] [-- OVERRIDE ...]
#
# create    requests the slice and waits until it is there
# setup     ships a commit to all hosts, installs it, mounts the bucket; not under a run
# run       starts cai_jax on all hosts; it outlives the connection
# logs      follows the log of one host; fails if the run there failed
# status    the state of the slice, and of the run on every host
# stop      ends the run on all hosts
# resume    after a preemption: a new slice, set up, the same run again
# teardown  deletes the slice; until then it costs money
#
# NAME         of the slice
# PROJECT      of Google Cloud
# ZONE         with such TPUs
# ACCELERATOR  for instance v5litepod-256
# RUNTIME      software of the hosts, for instance v2-alpha-tpuv5-lite
# SPOT         true: cheaper, and may be preempted; default false
# BUCKET       shared by all hosts, without gs://
# WORKDIR      folder inside the bucket; default runs/NAME
# CONFIG       default configs/rlaif.py
# COMMIT       what setup ships; default HEAD
# WORKER       the host whose log to follow; default 0
# HF_TOKEN     of Hugging Face, for gated models; in the environment alone
#
# Settings are flags (--name=...) or environment variables; overrides are flags of cai_jax.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

read_settings NAME PROJECT ZONE ACCELERATOR RUNTIME SPOT BUCKET WORKDIR CONFIG COMMIT WORKER -- "$@"
WHERE=("--project=$PROJECT" "--zone=$ZONE")
ON_WORKER=cai_jax/launch/tpu_vm/worker.sh
POLL_SECONDS=${POLL_SECONDS:-30}
MAX_FAILED_POLLS=10 # in a row; one must not end a wait of hours
FIND_STATE=(
  gcloud compute tpus queued-resources list "${WHERE[@]}"
  "--filter=name~/$NAME\$" "--format=value(state.state)"
)

# find_state ASSUMED: sets STATE, empty where there is no such queued resource.
find_state() {
  ask STATE "$1" "check PROJECT, ZONE and 'gcloud auth login'" "${FIND_STATE[@]}"
}

wait_until_active() {
  local seen='' failed=0
  while true; do
    if ! answer STATE ACTIVE "${FIND_STATE[@]}"; then
      if ((++failed == MAX_FAILED_POLLS)); then
        die "gcloud failed $failed times in a row, its messages are above; the request for $NAME" \
          "stays queued, and costs money once the slice is there: run 'resume' to go on waiting," \
          "or 'teardown'"
      fi
      sleep "$POLL_SECONDS"
      continue
    fi
    failed=0
    if [[ $STATE != "$seen" ]]; then
      say "$NAME: ${STATE:-gone}"
      seen=$STATE
    fi
    case $STATE in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING | "")
        die "queued resource $NAME is ${STATE:-gone} and will not become active; see" \
          "'gcloud compute tpus queued-resources describe $NAME ${WHERE[*]}', then run 'resume'," \
          "which requests it anew"
        ;;
    esac
    sleep "$POLL_SECONDS"
  done
}

request() {
  local command=(
    gcloud compute tpus queued-resources create "$NAME" "${WHERE[@]}" "--node-id=$NAME"
    "--accelerator-type=$ACCELERATOR" "--runtime-version=$RUNTIME"
  )
  if [[ $SPOT == true ]]; then
    command+=(--spot)
  fi
  attempt "check quota, ACCELERATOR and RUNTIME for $ZONE, and run '$STEP' again" "${command[@]}"
  say "waiting for the slice; if you interrupt this, the request stays, and 'resume' goes on"
  wait_until_active
}

delete() {
  attempt "run '$STEP' again; until the slice is deleted, it costs money" \
    gcloud compute tpus queued-resources delete "$NAME" "${WHERE[@]}" --force --quiet
}

# What to do where hosts are not there.
unreachable() {
  if [[ $STEP == resume ]]; then
    echo "if the hosts of an ACTIVE slice stay out of reach, 'teardown', then 'create' another"
  else
    echo "if the slice was preempted, run 'resume'"
  fi
}

# on_workers WORKER ADVICE COMMAND: on one host, or on 'all'.
on_workers() {
  attempt "$2; $(unreachable)" \
    gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" "--worker=$1" "--command=$3"
}

# copy_to_workers FILE NAME: to the home of all hosts.
copy_to_workers() {
  attempt "see that the slice is ACTIVE ('status') and that 'ssh-add ~/.ssh/google_compute_engine' \
was run, and run '$STEP' again; $(unreachable)" \
    gcloud compute tpus tpu-vm scp "$1" "$NAME:$2" "${WHERE[@]}" --worker=all
}

create() {
  find_state ""
  if [[ -n $STATE ]]; then
    die "queued resource $NAME exists and is $STATE; run 'setup' if it is ACTIVE, 'resume' to" \
      "wait for it or to replace it, or 'teardown'"
  fi
  request
}

# An archive of a commit needs no public repository, and no credentials on the hosts.
setup() {
  local commit archive
  commit=$(git -C "$ROOT" rev-parse --short --verify "${COMMIT:-HEAD}^{commit}") ||
    die "COMMIT '${COMMIT:-HEAD}' is no commit of $ROOT; give one"
  archive=${TMPDIR:-/tmp}/cai_jax-$commit.tar.gz
  say "shipping commit $commit; uncommitted changes stay here"
  attempt "see that the disk has room, and run '$STEP' again" \
    git -C "$ROOT" archive --format=tar.gz "--output=$archive" "$commit"
  copy_to_workers "$archive" cai_jax.tar.gz
  on_workers all "run '$STEP' again" "{ [ ! -f $ON_WORKER ] || bash $ON_WORKER check_idle; } &&\
 rm -rf cai_jax && mkdir cai_jax && tar -xzf cai_jax.tar.gz -C cai_jax &&\
 bash $ON_WORKER setup $(quoted "$BUCKET")"
}

# As a file that only its owner may read: a list of processes shows arguments, and hosts that are
# asked at once share one stdin. The run reads the file and removes it.
send_token() {
  TOKEN_FILE=${TMPDIR:-/tmp}/cai_jax-token.XXXXXX
  if [[ $DRY_RUN == false ]]; then
    TOKEN_FILE=$(mktemp "$TOKEN_FILE") # which makes it 0600
    trap 'rm -f "$TOKEN_FILE"' EXIT
    printf %s "$HF_TOKEN" >"$TOKEN_FILE"
  fi
  copy_to_workers "$TOKEN_FILE" cai_jax_token
}

run() {
  build_command
  if [[ -n $HF_TOKEN ]]; then
    send_token
  fi
  on_workers all "hosts that did start wait for the others: 'stop', fix the cause, and 'run'" \
    "bash $ON_WORKER run $(quoted "${COMMAND[@]}")"
}

stop() {
  on_workers all "run '$STEP' again" "[ ! -f $ON_WORKER ] || bash $ON_WORKER stop"
}

resume() {
  build_command # refuses bad settings before there is a slice
  find_state SUSPENDED
  while [[ $STATE == SUSPENDING || $STATE == DELETING ]]; do
    say "$NAME: $STATE"
    sleep "$POLL_SECONDS"
    find_state SUSPENDED
  done
  case $STATE in
    ACTIVE) stop ;;
    SUSPENDED | FAILED) delete && request ;;
    "") request ;;
    *) wait_until_active ;;
  esac
  setup
  run
}

status() {
  find_state ACTIVE
  say "$NAME: ${STATE:-there is none}"
  if [[ $STATE == ACTIVE ]]; then
    on_workers all "run 'setup' if that was not done" "bash $ON_WORKER status"
  fi
}

teardown() {
  find_state ACTIVE
  case $STATE in
    "") say "there is no queued resource $NAME in $ZONE; nothing to tear down" ;;
    DELETING) say "$NAME is being deleted already" ;;
    *) delete ;;
  esac
}

case $STEP in
  create) require NAME PROJECT ZONE ACCELERATOR RUNTIME && create ;;
  setup) require NAME PROJECT ZONE BUCKET && setup ;;
  run) require NAME PROJECT ZONE && run ;;
  logs)
    require NAME PROJECT ZONE
    on_workers "${WORKER:-0}" "if it is the run that failed, fix the cause and 'run' again" \
      "bash $ON_WORKER logs"
    ;;
  status | stop | teardown) require NAME PROJECT ZONE && "$STEP" ;;
  resume) require NAME PROJECT ZONE ACCELERATOR RUNTIME BUCKET && resume ;;
  *) unknown_step ;;
esac
