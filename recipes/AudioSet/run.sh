#!/usr/bin/env bash
# AudioSet in stages, from the official CSV files to a result.
#
#   run.sh --data_folder DIR --output_folder DIR [--stage 1] [--stop_stage 4]
#          [--ngpu 1] [--mini false]
#
#   1  write the manifests           -> OUTPUT/manifests
#   2  pre-train on all clips        -> OUTPUT/pretrain
#   3  fine-tune on AudioSet-20K     -> OUTPUT/finetune
#   4  print the result              <- OUTPUT/finetune/results.json
#
#   run.sh --table 1|2|3 ..., run.sh --figure 3|4 ...
#
# runs the experiments of a table or figure of the paper. The other options are those of
# tools/reproduce.py (--list prints the runs, --corpus mini uses the mini corpora).
#
# With --ngpu 1, 2 or 4 a step has 4 x 12 clips. --mini true uses the settings for the
# mini AudioSet (tools/make_mini_corpora.py) and two CPU cores. Re-run the same command to
# resume an interrupted run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
options='data_folder output_folder stage stop_stage ngpu mini'
data_folder='' output_folder='' stage=1 stop_stage=4 ngpu=1 mini=false
source "$here/../../tools/recipe_options.sh"

case ${1-} in
    --table | --figure)
        [ $# -ge 2 ] || refuse "$1 needs a number"
        exec "$python" "$here/../../tools/reproduce.py" "$@"
        ;;
esac

parse_options "$@"
[[ $ngpu =~ ^[124]$ ]] || refuse "--ngpu must be 1, 2 or 4, not $ngpu"
if [ "$mini" = true ]; then
    pretrain=pretrain_mini finetune=finetune_mini
else
    pretrain=pretrain finetune=finetune_as20k
fi

manifests=$output_folder/manifests
common=(--data_folder "$data_folder" --manifest_folder "$manifests")
launch=("$python")
[ "$ngpu" = 1 ] || launch+=(-m torch.distributed.run --standalone "--nproc_per_node=$ngpu")
batch=() # one GPU accumulates four batches per step
[ "$mini" = true ] || batch=(--grad_accumulation_factor $((4 / ngpu)))

if runs 1; then
    log "Stage 1: manifests"
    "$python" "$here/audioset_prepare.py" "$data_folder" "$manifests"
fi

if runs 2; then
    log "Stage 2: pre-training with $pretrain.yaml on $ngpu GPU(s)"
    "${launch[@]}" "$here/train.py" "$here/hparams/$pretrain.yaml" "${common[@]}" \
        --output_folder "$output_folder/pretrain" ${batch[@]+"${batch[@]}"}
fi

if runs 3; then
    log "Stage 3: fine-tuning with $finetune.yaml"
    "$python" "$here/train.py" "$here/hparams/$finetune.yaml" "${common[@]}" \
        --output_folder "$output_folder/finetune" \
        --pretrained "$output_folder/pretrain/model"
fi

if runs 4; then
    log "Stage 4: result"
    show_results "$output_folder/finetune"
fi
