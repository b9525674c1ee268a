# shellcheck shell=bash
# shellcheck disable=SC2034 # its variables are for the scripts that source it
# What the launch scripts share: settings, dry runs, errors. It is sourced, not run.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
MOUNT=/mnt/cai_jax # where every host sees the bucket

if ((BASH_VERSINFO[0] < 5)); then
  echo "error: this is bash $BASH_VERSION; install bash 5, which macOS does not bring" >&2
  exit 1
fi

say() { echo "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# A command as a shell would read it back.
quoted() {
  local word text=
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    text+=" $word"
  done
  echo "${text# }"
}

# read_settings SETTING... -- STEP ARGUMENT...
# Sets STEP, DRY_RUN, OVERRIDES, and every SETTING: by its flag (--zone=Z for ZONE), or else by the
# environment, or else empty. No flag sets HF_TOKEN: a list of processes would show the secret.
read_settings() {
  local known=() setting
  while [[ $1 != -- ]]; do
    known+=("$1")
    declare -g "$1=${!1:-}"
    shift
  done
  shift
  : "${HF_TOKEN:=}"
  DRY_RUN=false OVERRIDES=()
  if [[ $# == 0 || $1 == --help ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0" # the comment at the top of the script
    exit 0
  fi
  STEP=$1
  shift
  while [[ $# -gt 0 ]]; do
    if [[ $1 == --dry_run ]]; then
      DRY_RUN=true
    elif [[ $1 == -- ]]; then
      OVERRIDES=("${@:2}")
      break
    elif [[ $1 == --hf_token* ]]; then
      die "HF_TOKEN is a secret; set it in the environment, not by a flag"
    elif [[ $1 =~ ^--([a-z]+)=(.*)$ && " ${known[*]} " == *" ${BASH_REMATCH[1]^^} "* ]]; then
      setting=${BASH_REMATCH[1]^^}
      declare -g "$setting=${BASH_REMATCH[2]}"
    else
      setting=${known[*]/#/--}
      die "unknown argument '$1'; settings are ${setting,,}, each with =VALUE, besides --dry_run," \
        "and what follows -- goes to cai_jax"
    fi
    shift
  done
  if [[ ! ${SPOT:=false} =~ ^(true|false)$ ]]; then
    die "SPOT is '$SPOT'; give --spot=true or --spot=false"
  fi
}

# require SETTING...: one error that names all that are empty.
require() {
  local setting missing=()
  for setting in "$@"; do
    if [[ -z ${!setting} ]]; then
      missing+=("$setting")
    fi
  done
  if [[ ${#missing[@]} -gt 0 ]]; then
    local flags=${missing[*]/#/--}
    die "step '$STEP' needs ${missing[*]}: set them in the environment, or as flags" \
      "(${flags,,}, each with =VALUE)"
  fi
}

unknown_step() {
  die "unknown step '$STEP'; steps are create, setup, run, logs, status, stop, resume, teardown"
}

# attempt ADVICE COMMAND...: runs the command, or only prints it in a dry run. A failure ends the
# script with what to do next.
attempt() {
  local advice=$1 code=0
  shift
  if [[ $DRY_RUN == true ]]; then
    quoted "$@"
    return
  fi
  say "+ $(quoted "$@")"
  "$@" || code=$?
  if [[ $code != 0 ]]; then
    die "$1 failed with exit code $code, its message is above; $advice"
  fi
}

# answer VARIABLE ASSUMED COMMAND...: sets VARIABLE to what the command prints; to ASSUMED in a dry
# run. Fails as the command does.
answer() {
  local variable=$1 text=$2
  shift 2
  if [[ $DRY_RUN == true ]]; then
    quoted "$@"
  else
    text=$("$@") || return
  fi
  declare -g "$variable=$text"
}

# ask VARIABLE ASSUMED ADVICE COMMAND...: the same, and a failure ends the script.
ask() {
  local advice=$3
  answer "$1" "$2" "${@:4}" || die "$4 failed with exit code $?, its message is above; $advice"
}

# Sets COMMAND, which all hosts run. Finished stages of the same workdir are skipped.
build_command() {
  require NAME
  : "${CONFIG:=configs/rlaif.py}" "${WORKDIR:=runs/$NAME}"
  if [[ $WORKDIR == /* || $WORKDIR == *://* ]]; then
    die "WORKDIR is '$WORKDIR'; give a folder inside the bucket, such as runs/$NAME"
  fi
  COMMAND=(
    python -m cai_jax.main --multihost
    "--config=$CONFIG" "--config.workdir=$MOUNT/$WORKDIR" "${OVERRIDES[@]}"
  )
}
