#!/usr/bin/env bash
# Runs cai_jax on a TPU slice that SkyPilot finds, in whatever zone has one.
#
#   launch/skypilot/launch.sh STEP [--dry_run] [--SETTING=VALUE ...] [-- OVERRIDE ...]
#
# create    finds a slice, ships the working tree to all hosts, mounts the bucket, installs
# setup     the same on the slice that is there, after changes
# run       starts cai_jax on all hosts; it outlives the connection
# logs      follows the log; fails if the run failed
# status    the slice and its runs
# stop      ends the run on all hosts
# resume    after a preemption: a new slice, set up, the same run again
# teardown  deletes the slice; until then it costs money
#
# NAME         of the slice
# ACCELERATOR  for instance v5litepod-256; 'sky show-gpus --all' lists them, with tpu- before
# ZONE         default: any that has one
# SPOT         true: cheaper, and may be preempted; default false
# BUCKET       shared by all hosts, without gs://
# WORKDIR      folder inside the bucket; default runs/NAME
# CONFIG       default configs/rlaif.py
#
# Settings are flags (--name=...) or environment variables; overrides are flags of cai_jax.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

read_settings NAME ACCELERATOR ZONE SPOT BUCKET WORKDIR CONFIG -- "$@"
TASK=$ROOT/launch/skypilot/task.yaml

launch() {
  local capacity=--no-use-spot infra=gcp
  if [[ $SPOT == true ]]; then
    capacity=--use-spot
  fi
  if [[ -n $ZONE ]]; then
    infra="gcp/*/$ZONE"
  fi
  attempt "see 'sky check gcp' and 'sky show-gpus --all', and run '$STEP' again" \
    sky launch --yes "--cluster=$NAME" "--workdir=$ROOT" "--infra=$infra" \
    "--gpus=tpu-$ACCELERATOR" "$capacity" "--env=BUCKET=$BUCKET" "$TASK"
}

run() {
  build_command
  attempt "see that the slice is UP ('status'); if it was preempted, run 'resume'" \
    sky exec --detach-run "--workdir=$ROOT" "--env=BUCKET=$BUCKET" \
    "--env=COMMAND=$(quoted "${COMMAND[@]}")" "$NAME" "$TASK"
}

refresh() {
  attempt "see 'sky check gcp'" sky status --refresh "$NAME"
}

# Asking for the state makes SkyPilot clear away what a preemption left, so that launching anew
# creates a slice; one that is still there is used again.
resume() {
  build_command # refuses bad settings before there is a slice
  refresh
  launch
  run
}

case $STEP in
  create | setup) require NAME ACCELERATOR BUCKET && launch ;;
  run) require NAME BUCKET && run ;;
  logs)
    require NAME
    attempt "if it is the run that failed, mend the cause and 'run' again; if the slice is gone, \
'resume'" sky logs "$NAME"
    ;;
  status)
    require NAME
    refresh
    attempt "run 'resume' if the slice is gone" sky queue "$NAME"
    ;;
  stop)
    require NAME
    attempt "see 'status'" sky cancel --yes --all "$NAME"
    ;;
  resume) require NAME ACCELERATOR BUCKET && resume ;;
  teardown)
    require NAME
    attempt "run 'teardown' again; until the slice is deleted, it costs money" \
      sky down --yes "$NAME"
    ;;
  *) unknown_step ;;
esac
