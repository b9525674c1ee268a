#!/usr/bin/env bash
# Runs cai_jax on TPU slices of a GKE cluster, through xpk.
#
#   launch/gke_xpk/launch.sh STEP [--dry_run] [--SETTING=VALUE ...] [-- OVERRIDE ...]
#
# create    makes the cluster, or completes it where it is there
# setup     builds and pushes the image, attaches the bucket
# run       starts cai_jax on all hosts of a slice; restarts it by itself after preemptions
# logs      follows the log of the first host until a restart, then waits; fails if the run failed
# status    the workload
# stop      ends the run, and keeps the cluster
# resume    completes the cluster, sets up, and starts the same run again
# teardown  deletes the cluster; until then it costs money
#
# NAME         of the run
# CLUSTER      default NAME
# PROJECT      of Google Cloud
# ZONE         with such TPUs
# ACCELERATOR  for instance v5litepod-256
# SPOT         true: cheaper, and may be preempted; default false
# IMAGE        where to push it, such as europe-docker.pkg.dev/PROJECT/REPOSITORY/cai_jax:v1
# BUCKET       shared by all hosts, without gs://
# WORKDIR      folder inside the bucket; default runs/NAME
# CONFIG       default configs/rlaif.py
# HF_TOKEN     of Hugging Face, for gated models; in the environment alone
#
# Settings are flags (--name=...) or environment variables; overrides are flags of cai_jax.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

read_settings NAME CLUSTER PROJECT ZONE ACCELERATOR SPOT IMAGE BUCKET WORKDIR CONFIG -- "$@"
: "${CLUSTER:=$NAME}"
WHERE=("--cluster=$CLUSTER" "--project=$PROJECT" "--zone=$ZONE")
RESTARTS=20 # what spot slices may take before somebody has to look
# Exit codes that the same command goes on after; see cai_jax/parallel/exit_codes.py.
HOST_LOST=75
PREEMPTED=85

create() {
  local capacity=--on-demand
  if [[ $SPOT == true ]]; then
    capacity=--spot
  fi
  attempt "check quota and ACCELERATOR for $ZONE, and run '$STEP' again" \
    xpk cluster create "${WHERE[@]}" "--tpu-type=$ACCELERATOR" --num-slices=1 "$capacity" \
    --enable-gcsfuse-csi-driver
}

# The devices of a node belong to root, and xpk has no flag for a pod's groups: so does the image.
# Stages rename whole folders, which gcsfuse refuses without a limit; without the cache of metadata
# every host sees at once what another wrote.
setup() {
  attempt "fix the build, and run '$STEP' again" \
    docker build "--file=$ROOT/launch/Dockerfile" "--tag=$IMAGE" --build-arg=USER_ID=0 "$ROOT"
  attempt "see that the repository exists and that 'gcloud auth configure-docker' was run for it" \
    docker push "$IMAGE"
  attempt "see that cluster $CLUSTER is there ('create'), and run '$STEP' again" \
    xpk storage attach "$NAME" "${WHERE[@]}" --type=gcsfuse "--bucket=$BUCKET" --size=1 \
    "--mount-point=$MOUNT" --readonly=false --auto-mount=false --no-prefetch-metadata \
    --mount-options=implicit-dirs,rename-dir-limit=100000,metadata-cache:ttl-secs:0
  check_bucket
}

# Where the storage is there already, xpk leaves it as it is and reports success.
check_bucket() {
  credentials
  ask ATTACHED "$BUCKET" "see above what became of storage $NAME, and run '$STEP' again" \
    kubectl get pv "$NAME-pv" "--output=jsonpath={.spec.csi.volumeHandle}"
  if [[ $ATTACHED != "$BUCKET" ]]; then
    die "storage $NAME of cluster $CLUSTER is bucket '$ATTACHED', not '$BUCKET': take another" \
      "NAME, or 'stop' the run and 'xpk storage detach $NAME ${WHERE[*]}', and run '$STEP' again"
  fi
}

run() {
  local secret=()
  build_command
  if [[ -n $HF_TOKEN ]]; then
    secret=("--env-file=$ROOT/launch/gke_xpk/secret_names.env")
  fi
  attempt "if there is such a workload already, 'stop' it first; see 'status'" \
    xpk workload create "--workload=$NAME" "${WHERE[@]}" "--tpu-type=$ACCELERATOR" --num-slices=1 \
    "--docker-image=$IMAGE" --docker-name=cai-jax "--storage=$NAME" "${secret[@]}" \
    "--max-restarts=$RESTARTS" "--restart-on-exit-codes=$HOST_LOST,$PREEMPTED" \
    "--command=$(quoted "${COMMAND[@]}")"
}

credentials() {
  attempt "see that cluster $CLUSTER is there ('create')" \
    gcloud container clusters get-credentials "$CLUSTER" "--project=$PROJECT" \
    "--location=${ZONE%-*}"
}

logs() {
  credentials
  attempt "see 'status': pods that wait for a slice have no log yet" \
    kubectl logs --follow --tail=-1 --container=cai-jax \
    "--selector=xpk.google.com/workload=$NAME,batch.kubernetes.io/job-completion-index=0"
  say "the pod of this log has ended; if the run was restarted, 'logs' again follows the next pod"
  attempt "if it is the run that failed, fix the cause and 'resume'" \
    xpk workload list "${WHERE[@]}" "--wait-for-job-completion=$NAME"
}

# Foreground: it returns when the pods are gone as well, and what comes next finds the slice free.
stop() {
  credentials
  attempt "run '$STEP' again" \
    kubectl delete jobset "$NAME" --ignore-not-found --cascade=foreground --wait
}

resume() {
  build_command # refuses bad settings before anything is asked for
  create
  setup
  stop
  run
}

teardown() {
  ask FOUND "$CLUSTER" "check PROJECT and 'gcloud auth login'" \
    gcloud container clusters list "--project=$PROJECT" "--filter=name=$CLUSTER" \
    "--format=value(name)"
  if [[ -z $FOUND ]]; then
    say "there is no cluster $CLUSTER in $PROJECT; nothing to tear down"
    return
  fi
  attempt "run 'teardown' again; until the cluster is deleted, it costs money" \
    xpk cluster delete "${WHERE[@]}" --force
}

case $STEP in
  create) require NAME PROJECT ZONE ACCELERATOR && create ;;
  setup) require NAME PROJECT ZONE IMAGE BUCKET && setup ;;
  run) require NAME PROJECT ZONE ACCELERATOR IMAGE && run ;;
  logs | stop | teardown) require NAME PROJECT ZONE && "$STEP" ;;
  status)
    require NAME PROJECT ZONE
    attempt "see that cluster $CLUSTER is there ('create')" \
      xpk workload list "${WHERE[@]}" "--filter-by-job=$NAME"
    ;;
  resume) require NAME PROJECT ZONE ACCELERATOR IMAGE BUCKET && resume ;;
  *) unknown_step ;;
esac
