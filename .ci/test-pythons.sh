#!/usr/bin/env bash
# The device's half of the suite on each Python of 3.10 to 3.13 that is found:  bash .ci/test-pythons.sh TESTS...
# PYTHONS="3.10 3.13" chooses.  Each gets an environment of its own with what a station has (`.[cpu,ota]`), pytest,
# and what the tests compare with: onnx draws graphs, scikit-learn measures
set -u
bad=0 found=0
for version in ${PYTHONS:-3.10 3.11 3.12 3.13}; do
  python=''
  for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
    if "$candidate" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" >/dev/null 2>&1; then
      python=$candidate
      break
    fi
  done
  if [ -z "$python" ]; then echo "edge-sdk: no Python $version here"; continue; fi
  found=$((found + 1))
  venv=.venv-$version
  if [ ! "$venv/complete" -nt constraints.txt ] || [ ! "$venv/complete" -nt pyproject.toml ]; then
    bash .ci/venv.sh "$venv" '.[cpu,ota] pytest hypothesis onnx scikit-learn' "$python" || { bad=1; continue; }
    touch "$venv/complete"
  fi
  echo "edge-sdk: Python $version"
  "$venv/bin/python" -m pytest -q "$@" || bad=1
done
[ $found -gt 0 ] || { echo "edge-sdk: none of Python 3.10 to 3.13 has venv here; on Debian: sudo apt-get install python3-venv"; bad=1; }
exit $bad
