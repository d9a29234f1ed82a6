# Options, messages and stages of the recipes' run.sh, which source this file.
#
# First set each option named in `options` to its default. `parse_options "$@"` then sets
# those on the command line; `python` is the interpreter; `runs N` tells whether stage N
# was requested.

log() { echo "$(date '+%Y-%m-%d %H:%M:%S') run.sh: $*"; }

refuse() {
    echo "run.sh: $*" >&2
    sed -n '4,5s/^# *//p' "$0" >&2 # the usage in run.sh
    exit 2
}

parse_options() {
    while [ $# -gt 0 ]; do
        [[ $1 == --?* && " $options " == *" ${1#--} "* ]] || refuse "unknown option $1"
        [ $# -ge 2 ] || refuse "$1 needs a value"
        printf -v "${1#--}" '%s' "$2"
        shift 2
    done
    [ -n "$data_folder" ] || refuse "--data_folder is missing"
    [ -n "$output_folder" ] || refuse "--output_folder is missing"
    [[ $stage,$stop_stage =~ ^[1-4],[1-4]$ ]] || refuse "--stage and --stop_stage must be 1 to 4"
    [ "$stage" -le "$stop_stage" ] || refuse "--stage $stage is after --stop_stage $stop_stage"
    [[ $mini =~ ^(true|false)$ ]] || refuse "--mini must be true or false, not $mini"
}

show_results() { # print the results of a run folder
    [ -f "$1/results.json" ] || { log "$1: no results yet (run stage 3)"; exit 1; }
    cat "$1/results.json"
}

runs() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

python=${PYTHON:-$here/../../.venv/bin/python} # see tools/setup_env.sh
command -v "$python" >/dev/null || python=python3
