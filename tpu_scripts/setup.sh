#!/usr/bin/env bash
# Install r1jax on every worker of a slice.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
setup.sh --name NAME --zone ZONE [--project PROJECT] [--dry-run]

Copies the files of this checkout that git knows, as they are, to every worker, and installs them there with jax[tpu]
into ~/r1jax/.venv.
END
}

parse "$@"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command -v git >/dev/null || fail "git is not installed, which says what files belong to the project"
archive=$(mktemp -d)/r1jax.tar.gz
run bash -c "cd $(printf %q "$root") && git ls-files -z | tar czf $(printf %q "$archive") --null -T -"
tpus tpu-vm scp "$archive" "$name:r1jax.tar.gz" --worker=all
on_every_worker 'set -e
sudo apt-get -qq install -y python3-venv bubblewrap >/dev/null || echo "bubblewrap is not installed: see docs/sandbox.md"
mkdir -p r1jax && tar xzf r1jax.tar.gz -C r1jax && cd r1jax
[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install -q -e ".[gs]" "jax[tpu]"
.venv/bin/python -c "import jax, r1jax; print(jax.__version__, \"is installed\")"'
