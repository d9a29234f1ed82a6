#!/usr/bin/env bash
# Speech Commands V2, in stages.
#
#   run.sh --data_folder DIR --output_folder DIR [--pretrained MODEL] [--stage 1]
#          [--stop_stage 4] [--mini false]
#
#   1  write the manifests                         -> OUTPUT/manifests
#   2  pre-train on the training clips             -> OUTPUT/pretrain
#   3  fine-tune, select the epoch, test           -> OUTPUT/finetune
#   4  print the result                            <- OUTPUT/finetune/results.json
#
# --pretrained is a model folder or an official .pt file, as in the paper; without it
# stage 2 pre-trains on the corpus itself. --mini true uses the settings for the mini
# corpus (tools/make_mini_corpora.py) and two CPU cores. Re-run the same command to resume
# an interrupted run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
options='data_folder output_folder pretrained stage stop_stage mini'
data_folder='' output_folder='' pretrained='' stage=1 stop_stage=4 mini=false
source "$here/../../tools/recipe_options.sh"
parse_options "$@"

suffix=''
[ "$mini" = false ] || suffix=_mini
manifests=$output_folder/manifests
common=(--data_folder "$data_folder" --manifest_folder "$manifests")

if runs 1; then
    log "Stage 1: manifests"
    "$python" "$here/speech_commands_prepare.py" "$data_folder" "$manifests"
fi

if runs 2 && [ -z "$pretrained" ]; then
    log "Stage 2: pre-training"
    "$python" "$here/train.py" "$here/hparams/pretrain$suffix.yaml" "${common[@]}" \
        --output_folder "$output_folder/pretrain"
fi

if runs 3; then
    log "Stage 3: fine-tuning"
    "$python" "$here/train.py" "$here/hparams/finetune$suffix.yaml" "${common[@]}" \
        --output_folder "$output_folder/finetune" \
        --pretrained "${pretrained:-$output_folder/pretrain/model}"
fi

if runs 4; then
    log "Stage 4: result"
    show_results "$output_folder/finetune"
fi
