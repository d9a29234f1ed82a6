#!/usr/bin/env bash
# Pre-train and fine-tune a tiny EAT on real recordings and compare it with an untrained
# network: ten minutes on two CPU cores with AVX512-BF16, 18 without, after installation.
#
#     bash tools/quickstart.sh [--output results/quickstart] [--seed 0] [--short]
#
# Re-run the same command after an interruption: finished parts are not repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash tools/setup_env.sh
# Two trainings share two cores, one thread each; waiting threads must not spin.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
exec .venv/bin/python tools/quickstart/run.py "$@"
