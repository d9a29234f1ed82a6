#!/usr/bin/env bash
# AudioSet from the official CSV files to a result, in stages.
#
#   run.sh --data_folder DIR --output_folder DIR [--stage 1] [--stop_stage 4]
#          [--ngpu 1] [--mini false]
#
#   1  write the manifests           -> OUTPUT/manifests
#   2  pre-train on all clips        -> OUTPUT/pretrain
#   3  fine-tune it on AudioSet-20K  -> OUTPUT/finetune
#   4  show the result               <- OUTPUT/finetune/results.json
#
# --ngpu 1, 2 or 4 trains on 4 x 12 clips a step all the same. --mini true takes the
# settings for a mini AudioSet (tools/make_mini_corpora.py) and two CPU cores. The same
# command goes on with what was interrupted.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data_folder='' output_folder='' stage=1 stop_stage=4 ngpu=1 mini=false

log() { echo "$(date '+%Y-%m-%d %H:%M:%S') run.sh: $*"; }
refuse() {
    echo "run.sh: $*" >&2
    sed -n '4,5s/^# *//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --data_folder | --output_folder | --stage | --stop_stage | --ngpu | --mini)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        *) refuse "unknown option $1" ;;
    esac
done
[ -n "$data_folder" ] || refuse "--data_folder is missing"
[ -n "$output_folder" ] || refuse "--output_folder is missing"
[[ $stage,$stop_stage =~ ^[1-4],[1-4]$ ]] || refuse "--stage and --stop_stage are 1 to 4"
[[ $ngpu =~ ^[124]$ ]] || refuse "--ngpu is 1, 2 or 4, not $ngpu"
case $mini in
    true) pretrain=pretrain_mini finetune=finetune_mini ;;
    false) pretrain=pretrain finetune=finetune_as20k ;;
    *) refuse "--mini is true or false, not $mini" ;;
esac

python=${PYTHON:-$here/../../.venv/bin/python} # what tools/setup_env.sh made
command -v "$python" >/dev/null || python=python3
manifests=$output_folder/manifests
common=(--data_folder "$data_folder" --manifest_folder "$manifests")
launch=("$python")
[ "$ngpu" = 1 ] || launch+=(-m torch.distributed.run --standalone "--nproc_per_node=$ngpu")
batch=() # one GPU takes four batches a step
[ "$mini" = true ] || batch=(--grad_accumulation_factor $((4 / ngpu)))

runs() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

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
    cat "$output_folder/finetune/results.json"
fi
