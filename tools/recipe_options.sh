# What the recipes' run.sh share, sourced by them: options, messages, stages.
#
# Before: each option of `options` is set to its default. After: to what the command line
# says, `python` is the interpreter, and `runs N` tells whether stage N is asked for.

log() { echo "$(date '+%Y-%m-%d %H:%M:%S') run.sh: $*"; }

refuse() {
    echo "run.sh: $*" >&2
    sed -n '4,5s/^# *//p' "$0" >&2 # the lines of run.sh that show its use
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
    [[ $stage,$stop_stage =~ ^[1-4],[1-4]$ ]] || refuse "--stage and --stop_stage are 1 to 4"
    [ "$stage" -le "$stop_stage" ] || refuse "--stage $stage comes after --stop_stage $stop_stage"
    [[ $mini =~ ^(true|false)$ ]] || refuse "--mini is true or false, not $mini"
}

show_results() { # of a run's folder
    [ -f "$1/results.json" ] || { log "$1: no results yet (stage 3 makes them)"; exit 1; }
    cat "$1/results.json"
}

runs() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

python=${PYTHON:-$here/../../.venv/bin/python} # what tools/setup_env.sh made
command -v "$python" >/dev/null || python=python3
