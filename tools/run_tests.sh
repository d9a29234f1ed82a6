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
export OMP_WAIT_POLICY=PASSIVE # spinning threads slow each other down
status=0

echo "run_tests: quick tests"
.venv/bin/python -m pytest -m "not slow" || status=1
if $quick; then exit $status; fi

echo "run_tests: slow tests"
slow=0
.venv/bin/python -m pytest -m slow || slow=$?
# Status 5 is "no test collected": right only where no file marks one.
if [ $slow -eq 5 ] && ! grep -rq --include='*.py' 'mark\.slow' tests; then slow=0; fi
if [ $slow -ne 0 ]; then status=1; fi
exit $status
