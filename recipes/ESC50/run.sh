#!/usr/bin/env bash
# ESC-50, five folds, in stages.
#
#   run.sh --data_folder DIR --output_folder DIR [--pretrained MODEL] [--stage 1]
#          [--stop_stage 4] [--mini false]
#
#   1  write the manifests                     -> OUTPUT/manifests
#   2  pre-train on four folds, for each fold  -> OUTPUT/pretrain<fold>
#   3  fine-tune on four folds, for each fold  -> OUTPUT/fold<fold>
#   4  print each fold, mean and std deviation <- OUTPUT/fold<fold>/results.json
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
    "$python" "$here/esc50_prepare.py" "$data_folder" "$manifests"
fi

if runs 2 && [ -z "$pretrained" ]; then
    for fold in 1 2 3 4 5; do
        log "Stage 2: pre-training without fold $fold"
        "$python" "$here/train.py" "$here/hparams/pretrain$suffix.yaml" "${common[@]}" \
            --output_folder "$output_folder/pretrain$fold" --fold "$fold"
    done
fi

if runs 3; then
    for fold in 1 2 3 4 5; do
        log "Stage 3: fine-tuning, evaluated on fold $fold"
        "$python" "$here/train.py" "$here/hparams/finetune$suffix.yaml" "${common[@]}" \
            --output_folder "$output_folder/fold$fold" --fold "$fold" \
            --pretrained "${pretrained:-$output_folder/pretrain$fold/model}"
    done
fi

if runs 4; then
    log "Stage 4: result"
    "$python" "$here/summarize_folds.py" "$output_folder"
fi
