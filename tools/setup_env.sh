#!/usr/bin/env bash
# Create .venv in the repository root with the exact versions of requirements.txt.
#
#     [EAT_PYTHON=python3.12] bash tools/setup_env.sh
#
# Does nothing if .venv is up to date. Re-run it to resume an interrupted installation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.installed

log() { echo "setup_env: $*"; }
fail() { log "$*" >&2; exit 1; }

version_of() { "$1" -c 'import sys; print(sys.version)' 2>/dev/null; }
is_wanted_python() { # true unless EAT_PYTHON is given and .venv has another version
    [ -z "${EAT_PYTHON-}" ] || [ "$(version_of "$EAT_PYTHON")" = "$(version_of $venv/bin/python)" ]
}

# The path is included: moving the repository breaks the editable installation.
wanted=$(cat requirements.txt pyproject.toml setup.py <(pwd) | cksum)
if [ -x $venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ] && is_wanted_python; then
    exit 0
fi

find_python() {
    local name
    for name in ${EAT_PYTHON:-python3.11 python3.12 python3.13 python3}; do
        # Run it: version managers put names on the PATH that do not work.
        if "$name" -c 'import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    return 1
}

# Keep a working venv; create it if it is missing, incomplete or its Python was removed.
if ! $venv/bin/python -m pip --version >/dev/null 2>&1 || ! is_wanted_python; then
    python=$(find_python) || fail "no Python 3.11, 3.12 or 3.13 with the venv module found" \
        "on the PATH (install one, for example the packages python3.11 and python3.11-venv)"
    "$python" -m venv --clear $venv
fi
rm -f $stamp
log "$($venv/bin/python --version) in $PWD/$venv"

log "installing requirements.txt (about 3 GB to download the first time, some minutes)"
quiet=(--quiet)
if [ -t 1 ]; then quiet=(); fi # show pip's progress on a terminal
pip() { $venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip install ${quiet[@]+"${quiet[@]}"} -r requirements.txt ||
    fail "pip failed, see above (re-run this script to resume)"
# It requires TensorFlow, of which the test has a stub.
pip install --quiet --no-deps hearvalidator==2021.0.2 ||
    fail "pip could not install hearvalidator, see above (re-run this script to resume)"
pip install --quiet --no-deps --no-build-isolation -e . ||
    fail "pip could not install the project itself, see above"

log "checking the imports"
$venv/bin/python -I -c 'import torch, torchaudio, speechbrain, eat' ||
    fail "an import failed, see above; if it is torchaudio, pip installed a torch build" \
        "without CUDA (let pip take torch from PyPI, 'pip config list' shows its sources;" \
        "then remove $venv and re-run this script)"
echo "$wanted" >$stamp
log "ready: $venv/bin/python"
