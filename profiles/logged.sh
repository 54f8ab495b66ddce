# logged LOG COMMAND...: runs a stage's command with its output in LOG. The terminal gets the log's last line; where the
# command fails, the log's name and its last five lines.
logged() {
    local log=$1 status=0
    shift
    "$@" &> "$log" || status=$?
    if [ $status = 0 ]; then
        tail -n 1 "$log"
    else
        { echo "$log:" && tail -n 5 "$log"; } >&2
    fi
    return $status
}
