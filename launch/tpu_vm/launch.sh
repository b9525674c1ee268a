#!/usr/bin/env bash
# Runs cai_jax on a Cloud TPU slice, of one host or many, through queued resources.
#
#   launch/tpu_vm/launch.sh STEP [--dry_run] [--SETTING=VALUE ...] [-- OVERRIDE ...]
#
# create    requests the slice and waits until it is there
# setup     ships a commit to all hosts, installs it, mounts the bucket
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
#
# Settings are flags (--name=...) or environment variables; overrides are flags of cai_jax.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

read_settings NAME PROJECT ZONE ACCELERATOR RUNTIME SPOT BUCKET WORKDIR CONFIG COMMIT WORKER -- "$@"
WHERE=("--project=$PROJECT" "--zone=$ZONE")
ON_WORKER=cai_jax/launch/tpu_vm/worker.sh
POLL_SECONDS=${POLL_SECONDS:-30}

# find_state ASSUMED: sets STATE, empty where there is no such queued resource.
find_state() {
  ask STATE "$1" "check PROJECT, ZONE and 'gcloud auth login'" \
    gcloud compute tpus queued-resources list "${WHERE[@]}" \
    "--filter=name~/$NAME\$" "--format=value(state.state)"
}

wait_until_active() {
  local seen=
  while true; do
    find_state ACTIVE
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

# on_workers WORKER ADVICE COMMAND: on one host, or on 'all'.
on_workers() {
  attempt "$2; if the slice was preempted, run 'resume'" \
    gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" "--worker=$1" "--command=$3"
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
  attempt "see that the slice is ACTIVE ('status') and that 'ssh-add ~/.ssh/google_compute_engine' \
was run, and run '$STEP' again" \
    gcloud compute tpus tpu-vm scp "$archive" "$NAME:cai_jax.tar.gz" "${WHERE[@]}" --worker=all
  on_workers all "run '$STEP' again" "rm -rf cai_jax && mkdir cai_jax &&\
 tar -xzf cai_jax.tar.gz -C cai_jax && bash $ON_WORKER setup $(quoted "$BUCKET")"
}

run() {
  build_command
  on_workers all "hosts that did start wait for the others: 'stop', mend the cause, and 'run'" \
    "bash $ON_WORKER run $(quoted "${COMMAND[@]}")"
}

stop() {
  on_workers all "run 'stop' again" "[ ! -f $ON_WORKER ] || bash $ON_WORKER stop"
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
    on_workers "${WORKER:-0}" "if it is the run that failed, mend the cause and 'run' again" \
      "bash $ON_WORKER logs"
    ;;
  status | stop | teardown) require NAME PROJECT ZONE && "$STEP" ;;
  resume) require NAME PROJECT ZONE ACCELERATOR RUNTIME BUCKET && resume ;;
  *) unknown_step ;;
esac
