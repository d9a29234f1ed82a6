#!/usr/bin/env bash
# Run the tests of Hugging Face folders with another version of transformers:
#
#     bash tools/test_transformers.sh 4.57.6
#
# It is installed once, with the versions of huggingface_hub and tokenizers that it
# needs, into a cache folder, which hides the versions of the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=${1:?usage: bash tools/test_transformers.sh VERSION}
python=${PYTHON:-.venv/bin/python}
overlay=${XDG_CACHE_HOME:-$HOME/.cache}/eat-toolkit/transformers-$version

if [ ! -e "$overlay/.installed" ]; then
    rm -rf "$overlay"
    install() { "$python" -m pip install --quiet --no-deps --target "$overlay" "$@"; }
    install "transformers==$version"
    mapfile -t needed < <("$python" - "$overlay" <<'PYTHON'
import sys
from importlib.metadata import distributions

(transformers,) = distributions(path=[sys.argv[1]])
for requirement in transformers.requires or ():
    if requirement.startswith(("huggingface", "tokenizers")) and ";" not in requirement:
        print(requirement)
PYTHON
    )
    install "${needed[@]}"
    touch "$overlay/.installed"
fi

PYTHONPATH=$overlay:$PWD${PYTHONPATH:+:$PYTHONPATH} "$python" -m pytest -n 0 \
    tests/unit/test_hf.py tests/unit/interop/test_hugging_face_export.py
