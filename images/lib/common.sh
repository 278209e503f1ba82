# shellcheck shell=bash disable=SC2034,SC2154,SC2016 # shared variables; hooks expand in shells of their own
# Steps, stamps and durable publishing, shared by the files beside this one. Expects HERE and OUT.

LOG=$OUT/prepare.log
STAMPS=$OUT/.stamps
# Scratch space of this run; on the same file system as the outputs, so that a finished file is renamed into place.
WORK=$OUT/.work

# Takes the lock on OUT (two runs never share a scratch directory) and clears what a killed run left.
open_out() {
    mkdir -p "$STAMPS"
    exec 9>"$OUT/.lock"
    flock 9
    remove_tree "$WORK"
    mkdir -p "$WORK"
    : >"$LOG"
    trap close_out EXIT
}

close_out() {
    local status=$?
    remove_tree "$WORK"
    if [ "$status" -ne 0 ]; then
        echo "images/prepare failed; the end of $LOG:" >&2
        tail -n 20 "$LOG" >&2
    fi
}

# Removes a directory, but never walks into a file system that is still mounted in it.
remove_tree() {
    rm -rf --one-file-system "$1"
}

step() {
    echo "==> $*"
    echo "==> $*" >>"$LOG"
}

# Runs a command with its output in the log.
quietly() {
    "$@" >>"$LOG" 2>&1 </dev/null
}

# Prints one hash over the named files (paths and content) and, after `--`, over the words that follow.
hash_of() {
    local files=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        files+=("$1")
        shift
    done
    {
        sha256sum "${files[@]}" | sed "s|  $HERE/|  |"
        printf '%s\n' "$@"
    } | sha256sum | cut -d' ' -f1
}

# is_fresh NAME HASH OUTPUT...: whether the step NAME was finished with this HASH and its outputs are there.
is_fresh() {
    local name=$1 hash=$2 output
    shift 2
    [ "$(cat "$STAMPS/$name" 2>/dev/null)" = "$hash" ] || return 1
    for output in "$@"; do
        [ -e "$OUT/$output" ] || return 1
    done
}

# publish PATH OUTPUT: makes PATH durable and renames it to OUT/OUTPUT.
publish() {
    mkdir -p "$(dirname "$OUT/$2")"
    chmod a+r "$1"
    sync "$1"
    mv -T "$1" "$OUT/$2"
    sync "$(dirname "$OUT/$2")"
}

# Records that NAME was finished with HASH; called after its last output was published.
stamp() {
    printf '%s\n' "$2" >"$WORK/stamp"
    publish "$WORK/stamp" ".stamps/$1"
}
