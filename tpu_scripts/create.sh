#!/usr/bin/env bash
# Ask for a slice of TPUs, and wait until it is there.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<END
create.sh --name NAME --zone ZONE --slice SLICE [--spot] [--project PROJECT] [--dry-run]

Queues a request for a slice and waits for it. With --spot it is cheaper, and may be taken back at any time.
  --slice SLICE      R1JAX_TPU_SLICE; one of
                     $(fold -s -w 90 <<<"$SLICES" | sed '2,$s/^/                     /')
                     (v5e and v6e count chips, v5p counts cores, two a chip)
END
}

parse "$@"
check_slice
case $slice in
  v5e-*) type=v5litepod-${slice#v5e-} runtime=v2-alpha-tpuv5-lite ;;
  v5p-*) type=$slice runtime=v2-alpha-tpuv5 ;;
  v6e-*) type=$slice runtime=v2-alpha-tpuv6e ;;
esac

tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$type" --runtime-version="$runtime" \
  "${spot[@]}"
$dry_run && exit
until [[ $(state) == ACTIVE ]]; do
  case $(state) in
    FAILED | SUSPENDED | SUSPENDING) fail "the request is $(state): look at 'gcloud compute tpus queued-resources \
describe $name --zone=$zone', then delete.sh and create.sh again" ;;
  esac
  echo "$(date +%T) $(state)"
  sleep 30
done
echo "$name is there: setup.sh next"
