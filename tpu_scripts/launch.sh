#!/usr/bin/env bash
# Start one command on every worker of a slice. A run that was stopped or preempted goes on where it was saved.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch.sh --name NAME --zone ZONE [--project PROJECT] [--dry-run] -- COMMAND

For instance: launch.sh --name pod --zone us-east5-a -- \
  python experiments/r1_zero.py --distributed --preset paper --workdir gs://bucket/r1_zero

The command goes on when you log out, and ends when the worker does; watch.sh shows its output, which is kept in
~/r1jax.log. --distributed joins the workers of a slice of several hosts. What an earlier launch.sh has started is asked
to save and stop first.
END
}

parse "$@"
((${#words[@]})) || fail "no command: put it behind --, such as -- python experiments/r1_zero.py --workdir gs://..."
printf -v command '%q ' "${words[@]}"
# Ctrl-C in its terminal, once: r1jax saves and stops, and at a second one it would not save. tee -i outlives it.
on_every_worker "tmux send-keys -t r1jax C-c 2>/dev/null
while tmux has-session -t r1jax 2>/dev/null; do sleep 1; done
cat > r1jax.sh <<'END'
cd ~/r1jax && source .venv/bin/activate
$command 2>&1 | tee -ai ~/r1jax.log
echo \"ended with status \${PIPESTATUS[0]}\" >> ~/r1jax.log
END
tmux new-session -d -s r1jax bash r1jax.sh"
$dry_run || echo "started on $name: watch.sh shows it"
