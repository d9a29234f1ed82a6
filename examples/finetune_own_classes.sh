#!/usr/bin/env bash
# # Fine-tune on your own classes
#
# FOLDER has a folder of recordings for each class; MODEL is a pre-trained checkpoint. At
# the end, a recording is tagged with the new classes.
#
#     bash examples/finetune_own_classes.sh MODEL FOLDER RUN [option of train.py ...]
#
# Options of `train.py` go at the end, for instance `--number_of_epochs 5`. The YAML file
# is `hparams/finetune.yaml`, for a model of the paper's size; `EAT_HPARAMS=finetune_mini`
# takes that of the tiny network.
set -euo pipefail
model=$(realpath "$1") folder=$(realpath "$2") run=$(realpath -m "$3")
shift 3
python=${PYTHON:-python}
cd "$(dirname "${BASH_SOURCE[0]}")/../recipes/OwnData"

# Lists of the recordings: about a fifth of each class is for evaluation.
"$python" own_data_prepare.py "$folder" "$run/manifests"
classes=$(($(wc -l <"$run/manifests/labels.csv") - 1))

"$python" train.py "hparams/${EAT_HPARAMS:-finetune}.yaml" --data_folder "$folder" \
    --manifest_folder "$run/manifests" --output_folder "$run" --pretrained "$model" \
    --num_classes "$classes" "$@"

# The fine-tuned model is RUN/model.
recording=$(find "$folder" -type f -name '*.wav' | sort | head -1)
eat tag "$run/model" "$recording"
