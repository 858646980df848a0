#!/bin/sh
# Installs Forebay from this folder alone: no network is asked for anything. Run it as whoever may write to the destination.
set -eu
cd "$(dirname "$0")"
into=${1:-/opt/forebay}
python=${PYTHON:-python3}

if [ "${1:-}" = "-h" ] || [ "${1:-}" = "--help" ]; then
  echo "usage: ./install.sh [DIRECTORY]   installs into a virtual environment there; /opt/forebay unless given"
  echo "       PYTHON=python3.13 ./install.sh   with that interpreter, the one that the wheels were fetched for"
  exit 0
fi
sha256sum --quiet --check SHA256SUMS || { echo "This folder is not what was packed: see the lines above." >&2; exit 1; }
wanted=$(cat PYTHON-VERSION)
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$found" = "$wanted" ] || {
  echo "These wheels are for Python $wanted, and $python is $found: set PYTHON to one of that version, or pack anew with it." >&2
  exit 1
}
[ ! -e "$into/bin/forebay" ] || {
  echo "There is a Forebay in $into already: name another directory, and see docs/upgrading.md for how to move to it." >&2
  exit 1
}
"$python" -m venv "$into"
"$into/bin/pip" install -q --disable-pip-version-check --no-index --no-deps --no-compile --require-hashes -r lock.txt
"$into/bin/python" -m compileall -q -j 0 "$into/lib" || true   # a module that an older Python cannot read is none of ours
"$into/bin/forebay" version
echo "Installed in $into. All on this machine: $into/bin/forebay up"
