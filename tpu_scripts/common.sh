# shellcheck shell=bash
# shellcheck disable=SC2034  # variables are read by the scripts that source this
# What every script here shares: options, slice names, running or only printing a command. Sourced, not run.
set -euo pipefail

readonly SLICES="v5e-4 v5e-8 v5e-16 v5e-32 v5e-64 v5e-128 v5e-256 v5p-8 v5p-16 v5p-32 v5p-64 v5p-128 v5p-256 v5p-512 \
v5p-1024 v5p-2048 v6e-8 v6e-16 v6e-32 v6e-64 v6e-128 v6e-256"

name=${R1JAX_TPU_NAME:-} zone=${R1JAX_TPU_ZONE:-} project=${R1JAX_TPU_PROJECT:-} slice=${R1JAX_TPU_SLICE:-}
spot=() dry_run=false words=()

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

common_usage() {
  cat <<'END'

Options of all scripts, each with the variable that may give it instead:
  --name NAME        of the slice                      R1JAX_TPU_NAME
  --zone ZONE        such as us-east5-a                R1JAX_TPU_ZONE
  --project PROJECT  by default gcloud's own           R1JAX_TPU_PROJECT
  --dry-run          print the commands, run nothing
END
}

# Read options into the variables above; what follows -- goes into `words`.
parse() {
  while (($#)); do
    case $1 in
      --name | --zone | --project | --slice)
        (($# > 1)) || fail "$1 needs a value; see --help"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
      --spot) spot=(--spot) ;;
      --dry-run) dry_run=true ;;
      --help | -h)
        usage
        common_usage
        exit 0
        ;;
      --)
        shift
        words=("$@")
        break
        ;;
      *) fail "unknown option $1; see --help" ;;
    esac
    shift
  done
  [[ -n $name ]] || fail "--name is missing: which slice? (or set R1JAX_TPU_NAME)"
  [[ $name =~ ^[a-z][a-z0-9-]{0,38}$ ]] || fail "--name '$name': small letters, digits and dashes, 39 at most"
  [[ -n $zone ]] || fail "--zone is missing, such as us-east5-a (or set R1JAX_TPU_ZONE)"
  $dry_run || command -v gcloud >/dev/null ||
    fail "gcloud is not installed: https://cloud.google.com/sdk/docs/install, then 'gcloud auth login'"
}

check_slice() {
  [[ " $SLICES " == *" $slice "* ]] || fail "--slice '$slice' is not one of: $SLICES"
}

# Run a command, or with --dry-run print it.
run() {
  if $dry_run; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

# gcloud compute tpus ..., in the zone and project.
tpus() {
  run gcloud compute tpus "$@" --zone="$zone" ${project:+"--project=$project"}
}

on_every_worker() {
  tpus tpu-vm ssh "$name" --worker=all --command="$1"
}

# One word of the queued resource's life: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDED, FAILED, ...; empty
# where there is none.
state() {
  gcloud compute tpus queued-resources describe "$name" --zone="$zone" ${project:+"--project=$project"} \
    --format='value(state.state)' 2>/dev/null || true
}
