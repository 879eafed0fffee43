#!/usr/bin/env bash
# Make or complete a virtual environment:  bash .ci/venv.sh DIR EXTRAS [PYTHON]
#   DIR      where, e.g. .venv
#   EXTRAS   what to install of this checkout, e.g. '.[dev]'; more words are further requirements
# Quiet but for progress lines; what pip says goes to build/install.log and is shown where it fails.
set -eu -o pipefail
venv=$1 what=$2 wanted=${3:-}
say() { printf 'edge-sdk: %s\n' "$*" >&2; }
fail() { printf 'edge-sdk: %s\n' "$@" >&2; exit 1; }

# CPython, recent enough, and the one that is asked for first
suits() {
  "$1" - "$2" >/dev/null 2>&1 <<'PY'
import platform, sys
oldest = tuple(map(int, sys.argv[1].split(".")))
sys.exit(not (platform.python_implementation() == "CPython" and sys.version_info[:2] >= oldest))
PY
}
can() { "$1" -c "import $2" >/dev/null 2>&1; }

if [ -x "$venv/bin/python" ] && ! suits "$venv/bin/python" 3.10; then
  say "$venv does not work any more (its Python was removed?), making it again"
  rm -rf "$venv"
fi

if [ ! -x "$venv/bin/python" ]; then
  python='' bare=''
  for candidate in ${wanted:-${PYTHON:-} python3 python3.13 python3.12 python3.11 /usr/bin/python3 /usr/local/bin/python3}; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    [ -n "$wanted" ] || suits "$candidate" 3.11 || continue
    if can "$candidate" venv,ensurepip; then python=$candidate; break; fi
    # Debian without python3-venv: pip from outside can fill an environment that has none
    if [ -z "$bare" ] && can "$candidate" venv,pip; then bare=$candidate; fi
  done
  if [ -n "$python" ]; then
    say "making $venv with $("$python" --version 2>&1)"
    "$python" -m venv "$venv" || fail "$python cannot make a virtual environment here; is there room and the right to write?"
  elif [ -n "$bare" ]; then
    say "making $venv with $("$bare" --version 2>&1) and its pip"
    "$bare" -m venv --without-pip "$venv"
    "$bare" -m pip --python "$venv/bin/python" install --quiet pip
  else
    fail "no CPython of 3.11 or newer with venv was found; on Debian: sudo apt-get install python3-venv" \
         "another one is taken with: make PYTHON=/path/to/python3"
  fi
fi

mkdir -p build
log=build/install-$(basename "$venv").log
say "installing into $venv what constraints.txt pins (minutes the first time)"
begun=$SECONDS
# shellcheck disable=SC2086  # the words of $what are meant apart
"$venv/bin/python" -m pip install --progress-bar off -c constraints.txt -e $what >"$log" 2>&1 </dev/null &
pip=$!
trap 'kill "$pip" 2>/dev/null || true' EXIT
next=20
while kill -0 "$pip" 2>/dev/null; do
  sleep 0.2
  if [ $((SECONDS - begun)) -ge $next ]; then say "still installing, $((SECONDS - begun)) s"; next=$((next + 20)); fi
done
trap - EXIT
if ! wait "$pip"; then
  tail -n 15 "$log" >&2
  fail "installing failed, the whole story is in $log; with the package registry in reach, the same command goes on"
fi
say "$venv is complete ($((SECONDS - begun)) s)"
