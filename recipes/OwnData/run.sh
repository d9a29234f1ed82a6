#!/usr/bin/env bash
# Your own recordings, in stages.
#
#   run.sh --data_folder DIR --output_folder DIR [--pretrained MODEL] [--stage 1]
#          [--stop_stage 4] [--mini false]
#
#   1  write the manifests, compute mean and std deviation  -> OUTPUT/manifests
#   2  pre-train on the recordings                          -> OUTPUT/pretrain
#   3  fine-tune on the labeled recordings, if any          -> OUTPUT/finetune
#   4  print the result                                     <- OUTPUT/*/results.json
#
# --pretrained is a model folder or an official .pt file to fine-tune; without it stage 2
# pre-trains on the recordings themselves. --mini true uses a small network and few steps,
# to try everything on two CPU cores. Re-run the same command to resume an interrupted run.
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
labeled() { [ -f "$manifests/labels.csv" ]; }

if runs 1; then
    log "Stage 1: manifests, mean and standard deviation"
    "$python" "$here/own_data_prepare.py" "$data_folder" "$manifests"
    norm=$("$python" "$here/../../tools/compute_stats.py" "$manifests/pretrain.csv" \
        --data_folder "$data_folder" | tail -n 1)
    mkdir -p "$manifests"
    echo "$norm" >"$manifests/norm.txt" # --norm_mean MEAN --norm_std STD
fi

if runs 2 || runs 3; then
    read -ra norm <"$manifests/norm.txt"
    common+=("${norm[@]}")
fi

if runs 2 && [ -z "$pretrained" ]; then
    log "Stage 2: pre-training"
    "$python" "$here/train.py" "$here/hparams/pretrain$suffix.yaml" "${common[@]}" \
        --output_folder "$output_folder/pretrain"
fi

if runs 3 && labeled; then
    log "Stage 3: fine-tuning"
    "$python" "$here/train.py" "$here/hparams/finetune$suffix.yaml" "${common[@]}" \
        --output_folder "$output_folder/finetune" \
        --pretrained "${pretrained:-$output_folder/pretrain/model}" \
        --num_classes $(($(wc -l <"$manifests/labels.csv") - 1))
fi

if runs 4; then
    log "Stage 4: result"
    if labeled; then
        show_results "$output_folder/finetune"
    else
        show_results "$output_folder/pretrain"
    fi
fi
