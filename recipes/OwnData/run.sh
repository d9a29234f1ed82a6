#!/usr/bin/env bash
# Your own recordings, in stages.
#
#   run.sh --data_folder DIR --output_folder DIR [--pretrained MODEL] [--labels auto]
#          [--test_labels none] [--stage 1] [--stop_stage 4] [--mini false]
#
#   1  write the manifests, compute mean and std deviation  -> OUTPUT/manifests
#   2  pre-train on the recordings                          -> OUTPUT/pretrain
#   3  fine-tune on the labeled recordings, if any          -> OUTPUT/finetune
#   4  print the result                                     <- OUTPUT/*/results.json
#
# If the data has folds, stages 2 and 3 run once for each, -> OUTPUT/pretrain<fold> and
# OUTPUT/fold<fold>. --labels is a table, folders (their names are the labels), none, or
# auto; --test_labels is a second table, to evaluate on. --pretrained is a model folder or
# an official .pt file to fine-tune; without it stage 2 pre-trains on the recordings
# themselves. --mini true uses a small network and few steps, to try everything on two CPU
# cores. Re-run the same command to resume an interrupted run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
options='data_folder output_folder pretrained labels test_labels stage stop_stage mini'
data_folder='' output_folder='' pretrained='' labels=auto test_labels=none
stage=1 stop_stage=4 mini=false
source "$here/../../tools/recipe_options.sh"
parse_options "$@"

suffix=''
[ "$mini" = false ] || suffix=_mini
manifests=$output_folder/manifests
seconds=$(sed -n 's/^max_seconds: *\([0-9.]*\).*/\1/p' "$here/hparams/pretrain$suffix.yaml")
tables=(--labels "$labels" --test_labels "$test_labels")
common=(--data_folder "$data_folder" --manifest_folder "$manifests" "${tables[@]}")
labeled() { [ -f "$manifests/labels.csv" ]; }

if runs 1; then
    log "Stage 1: manifests, mean and standard deviation"
    "$python" "$here/own_data_prepare.py" "$data_folder" "$manifests" "${tables[@]}" \
        --max_seconds "$seconds"
    norm=$("$python" "$here/../../tools/compute_stats.py" "$manifests/pretrain.csv" \
        --data_folder "$data_folder" | tail -n 1)
    mkdir -p "$manifests"
    echo "$norm" >"$manifests/norm.txt" # --norm_mean MEAN --norm_std STD
fi

if runs 2 || runs 3; then
    read -ra norm <"$manifests/norm.txt"
    common+=("${norm[@]}")
fi

# Without a split, every fold is evaluated on in turn.
folds=('')
if [ ! -f "$manifests/eval.csv" ] && compgen -G "$manifests/eval_*.csv" >/dev/null; then
    mapfile -t folds < <(basename -as .csv "$manifests"/eval_*.csv | cut -d_ -f2 | sort -n)
fi

for fold in "${folds[@]}"; do
    pretrain=$output_folder/pretrain$fold tuned=$output_folder/fold$fold
    options=("${common[@]}" --fold "$fold") note=", fold $fold"
    [ -n "$fold" ] || { tuned=$output_folder/finetune options=("${common[@]}") note=''; }

    if runs 2 && [ -z "$pretrained" ]; then
        log "Stage 2: pre-training$note"
        "$python" "$here/train.py" "$here/hparams/pretrain$suffix.yaml" "${options[@]}" \
            --output_folder "$pretrain"
    fi

    if runs 3 && labeled; then
        log "Stage 3: fine-tuning$note"
        "$python" "$here/train.py" "$here/hparams/finetune$suffix.yaml" "${options[@]}" \
            --output_folder "$tuned" --pretrained "${pretrained:-$pretrain/model}" \
            --num_classes $(($(wc -l <"$manifests/labels.csv") - 1))
    fi
done

if runs 4; then
    log "Stage 4: result"
    if ! labeled; then
        show_results "$output_folder/pretrain"
    elif [ -z "${folds[*]}" ]; then
        show_results "$output_folder/finetune"
    else
        "$python" "$here/summarize_folds.py" "$output_folder"
    fi
fi
