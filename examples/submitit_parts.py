"""# Parts with submitit

Preparing, packing and extracting features are independent jobs: each of N does its part
and exits, and the last one joins the results.
[submitit](https://pypi.org/project/submitit/) submits them to Slurm from Python, or
starts them on this machine where there is no Slurm, and waits for them. Parts that fail
are submitted once more; they continue where they stopped.
`pip install 'eat-toolkit[scale]'` installs submitit.

    python examples/submitit_parts.py 16 LOGS \\
        python recipes/AudioSet/audioset_prepare.py AUDIOSET MANIFESTS
    python examples/submitit_parts.py 16 LOGS \\
        eat features MODEL MANIFESTS/eval.csv --data_root AUDIOSET --out FEATURES
"""

import subprocess
import sys

import submitit

total, logs, *command = sys.argv[1:]


def run(part: int) -> None:
    """Run a part, in a job of its own."""
    subprocess.run([*command, "--part", f"{part}/{total}"], check=True)


executor = submitit.AutoExecutor(folder=logs)
executor.update_parameters(
    name="eat-part", timeout_min=24 * 60, cpus_per_task=8, slurm_array_parallelism=64
)

missing = list(range(1, int(total) + 1))
for _ in range(2):
    jobs = dict(zip(missing, executor.map_array(run, missing), strict=True))
    missing = [part for part, job in jobs.items() if job.exception()]  # waits for it
    if not missing:
        break
if missing:
    sys.exit(f"parts {missing} of {total} failed (see {logs})")
print(f"all {total} parts are complete")
