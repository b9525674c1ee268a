#!/usr/bin/env bash
# Runs cai_jax on a TPU slice that SkyPilot finds, in whatever zone has one.
#
#   launch/skypilot/launch.sh STEP [--dry_run] [--SETTING=VALUE ...] [-- OVERRIDE ...]
#
# create    finds a slice, ships the working tree to all hosts, mounts the bucket, installs
# setup     the same on the slice that is there, after changes; 'stop' a run first
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
# RUNTIME      software of the hosts; default SkyPilot's, which for v5e is that of v5p
# SPOT         true: cheaper, and may be preempted; default false
# BUCKET       shared by all hosts, without gs://
# WORKDIR      folder inside the bucket; default runs/NAME
# CONFIG       default configs/rlaif.py
# HF_TOKEN     of Hugging Face, for gated models; in the environment alone
#
# Settings are flags (--name=...) or environment variables; overrides are flags of cai_jax.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

read_settings NAME ACCELERATOR ZONE RUNTIME SPOT BUCKET WORKDIR CONFIG -- "$@"
TASK=$ROOT/launch/skypilot/task.yaml

launch() {
  local capacity=--no-use-spot infra=gcp task=$TASK
  if [[ $SPOT == true ]]; then
    capacity=--use-spot
  fi
  if [[ -n $ZONE ]]; then
    infra="gcp/*/$ZONE"
  fi
  if [[ -n $RUNTIME ]]; then
    task=${TMPDIR:-/tmp}/cai_jax-$NAME.yaml
    attempt "see that the disk has room, and run '$STEP' again" sed -n \
      -e "s/^resources: {}/resources: {accelerator_args: {runtime_version: $RUNTIME}}/" \
      -e "w $task" "$TASK"
  fi
  attempt "see 'sky check gcp' and 'sky show-gpus --all', and run '$STEP' again" \
    sky launch --yes "--cluster=$NAME" "--workdir=$ROOT" "--infra=$infra" \
    "--gpus=tpu-$ACCELERATOR" "$capacity" "--env=BUCKET=$BUCKET" "$task"
}

run() {
  local secret=()
  build_command
  if [[ -n $HF_TOKEN ]]; then
    secret=(--secret=HF_TOKEN) # SkyPilot takes the value from the environment
  fi
  attempt "see that the slice is UP ('status'); if it was preempted, run 'resume'" \
    sky exec --detach-run "--workdir=$ROOT" "--env=BUCKET=$BUCKET" "${secret[@]}" \
    "--env=COMMAND=$(quoted "${COMMAND[@]}")" "$NAME" "$TASK"
}

stop() {
  attempt "see 'status'" sky cancel --yes --all "$NAME"
}

# Asking for the state makes SkyPilot clear away what a preemption left, so that launching anew
# creates a slice; one that is still there is used again, once what is left of the run has ended.
resume() {
  build_command # refuses bad settings before there is a slice
  ask CLUSTERS "" "see 'sky check gcp'" sky status --refresh --output=json "$NAME"
  if [[ $CLUSTERS == *'"status": "UP"'* ]]; then
    stop
  fi
  launch
  run
}

case $STEP in
  create | setup) require NAME ACCELERATOR BUCKET && launch ;;
  run) require NAME BUCKET && run ;;
  logs)
    require NAME
    attempt "if it is the run that failed, fix the cause and 'run' again; if the slice is gone, \
'resume'" sky logs "$NAME"
    ;;
  status)
    require NAME
    attempt "see 'sky check gcp'" sky status --refresh "$NAME"
    attempt "run 'resume' if the slice is gone" sky queue "$NAME"
    ;;
  stop) require NAME && stop ;;
  resume) require NAME ACCELERATOR BUCKET && resume ;;
  teardown)
    require NAME
    attempt "run 'teardown' again; until the slice is deleted, it costs money" \
      sky down --yes "$NAME"
    ;;
  *) unknown_step ;;
esac
