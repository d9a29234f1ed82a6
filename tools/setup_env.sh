#!/usr/bin/env bash
# Make .venv in the repository root with the exact versions of requirements.txt.
#
#     bash tools/setup_env.sh
#
# Nothing is done if that has been done before; an interrupted installation is repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.installed

log() { echo "setup_env: $*"; }
fail() { log "$*" >&2; exit 1; }

# The place counts as well: a moved repository breaks the editable installation.
wanted=$(cat requirements.txt setup.py <(pwd) | cksum)
if [ -x $venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3; do
        # Run it: version managers put names on the PATH that do not work.
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    return 1
}

python=$(find_python) || fail "no Python 3.11 or newer with the module venv on the" \
    "PATH (install one, e.g. the packages python3.11 and python3.11-venv)"

log "$($python --version) ($(command -v "$python")) -> $PWD/$venv"
rm -f $stamp
# A venv whose Python is gone, or was never completed, is begun again.
$venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear $venv

log "installing requirements.txt: some 3 GB to download the first time, minutes"
quiet=(--quiet)
if [ -t 1 ]; then quiet=(); fi # a terminal shows pip's progress
pip() { $venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip install ${quiet[@]+"${quiet[@]}"} -r requirements.txt ||
    fail "pip failed, see above; run this again to go on"
pip install --quiet --no-deps --no-build-isolation -e . ||
    fail "pip could not install the project itself, see above"

log "checking the imports"
$venv/bin/python -I -c 'import torch, torchaudio, speechbrain, eat' ||
    fail "an import failed, see above; if it is torchaudio's, pip took a torch without" \
        "CUDA: let pip use PyPI for torch ('pip config list' shows its sources)," \
        "rm -r $venv, and run this again"
echo "$wanted" >$stamp
log "ready: $venv/bin/python"
