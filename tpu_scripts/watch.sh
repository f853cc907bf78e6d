#!/usr/bin/env bash
# Follow the output of worker 0; with --resume, get a slice that was preempted again and go on.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
watch.sh --name NAME --zone ZONE [--project PROJECT] [--dry-run]
watch.sh --name NAME --zone ZONE --slice SLICE [--spot] ... -- COMMAND

Without a command: the last lines of every worker, and then what worker 0 writes. With one: looks at the slice every
minute; where it was taken back, deletes what is left of it, creates it again, sets it up and launches the command, which
goes on from its last checkpoint.
END
}

parse "$@"
here=$(dirname "${BASH_SOURCE[0]}")
if ! ((${#words[@]})); then
  # shellcheck disable=SC2016  # the worker expands it
  on_every_worker 'echo "== $(hostname)"; tail -n 3 ~/r1jax.log'
  tpus tpu-vm ssh "$name" --worker=0 --command='tail -n 20 -F ~/r1jax.log'
  exit
fi

same=(--name "$name" --zone "$zone")
[[ -z $project ]] || same+=(--project "$project")
again=(--slice "$slice" "${spot[@]}")
check_slice
bring_back() {
  run "$here/delete.sh" "${same[@]}"
  run "$here/create.sh" "${same[@]}" "${again[@]}" && run "$here/setup.sh" "${same[@]}" &&
    run "$here/launch.sh" "${same[@]}" -- "${words[@]}"
}
if $dry_run; then
  bring_back
  exit
fi
while :; do
  case $(state) in
    ACTIVE) sleep 60 ;;
    "" | SUSPENDED | SUSPENDING | FAILED)
      echo "$(date +%T) $name is gone; getting it again"
      bring_back || { echo "$(date +%T) that failed; again in five minutes"; sleep 300; }
      ;;
    *) sleep 60 ;;
  esac
done
