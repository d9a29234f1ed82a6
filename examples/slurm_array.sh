#!/usr/bin/env bash
# # Parts as a Slurm array
#
# Preparing, packing and extracting features are independent jobs: each of N does its
# part and exits, and the last one joins the results. Give Slurm the command and N:
#
#     sbatch --array=1-16 examples/slurm_array.sh 16 \
#         python recipes/AudioSet/audioset_prepare.py AUDIOSET MANIFESTS
#     sbatch --array=1-16 examples/slurm_array.sh 16 \
#         python tools/pack_shards.py MANIFESTS/{pretrain,eval}.csv \
#         --data_folder AUDIOSET --output SHARDS --workers 8
#     sbatch --array=1-16 --gpus=1 examples/slurm_array.sh 16 \
#         eat features MODEL SHARDS/eval.csv --data_root SHARDS --out FEATURES
#
# The command with `--merge 16` instead names the parts that are missing, in the form that
# `--array` takes. Submit those again, with the same N:
#
#     python tools/pack_shards.py ... --merge 16  # parts 3,7-9 of 16 are missing
#     sbatch --array=3,7-9 examples/slurm_array.sh 16 python tools/pack_shards.py ...
#
# Slurm does the same by itself when a node fails or is preempted (`--requeue`).

#SBATCH --job-name=eat-part
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log

set -euo pipefail
total=${1:?usage: sbatch --array=1-N slurm_array.sh N COMMAND ...}
shift
exec "$@" --part "${SLURM_ARRAY_TASK_ID:?start this with sbatch --array=1-N}/$total"
