#!/usr/bin/env bash
# Run the tests: the quick ones first, then the slow ones.
#
#     bash tools/run_tests.sh [--quick]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "$*" in
    "") quick=false ;;
    --quick) quick=true ;;
    *) echo "usage: bash tools/run_tests.sh [--quick]" >&2; exit 2 ;;
esac

bash tools/setup_env.sh
# Two files at a time, one core each; the tests of a file share expensive fixtures.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
pytest() { .venv/bin/python -m pytest -n 2 --dist loadfile "$@"; }
status=0

echo "run_tests: quick tests"
pytest -m "not slow" || status=1
if $quick; then exit $status; fi

echo "run_tests: slow tests"
slow=0
pytest -m slow || slow=$?
# Status 5, "no tests collected", is correct only if no file marks a test as slow.
if [ $slow -eq 5 ] && ! grep -rq --include='*.py' 'mark\.slow' tests; then slow=0; fi
if [ $slow -ne 0 ]; then status=1; fi
exit $status
