# Sourced by the other scripts: .venv with annorun and what its tests need, made once, renewed when
# pyproject.toml changes.
python=${PYTHON:-python3}
stamp=.venv/installed
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' ||
    { echo "annorun needs Python 3.11 to 3.13; say PYTHON=... to choose one" >&2; exit 1; }
  echo "installing annorun into .venv (some minutes, once)"
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
  touch "$stamp"
fi
