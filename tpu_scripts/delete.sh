#!/usr/bin/env bash
# Give a slice back. Checkpoints in a bucket stay; what is on the workers' own disks does not.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  echo "delete.sh --name NAME --zone ZONE [--project PROJECT] [--dry-run]"
}

parse "$@"
tpus queued-resources delete "$name" --force --quiet
