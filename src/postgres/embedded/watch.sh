# Stops the server once the gateway has ended, in whatever way.
#
# Standard input is a pipe whose only lasting write end belongs to the gateway: end of file means that
# the gateway has ended. Each line is the id of a newly started server process; the last one counts.
# The id and the start time identify the process, so that a reused id is never signalled.
# Stopping takes at most 17 s: a fast shutdown, then an immediate one, then a kill.
trap '' HUP INT QUIT TERM PIPE

# Prints when the process started; prints nothing for one that has ended.
started() {
    if [ -d /proc/self ]; then
        IFS= read -r stat <"/proc/$1/stat" || return 0
        set -f
        # The name may hold spaces and parentheses: what follows the last one begins with the
        # state, the 3rd field, and the start time is the 22nd.
        set -- ${stat##*) }
        [ "$1" = Z ] && return 0
        shift 19
        echo "$1"
    else
        ps -o lstart= -p "$1"
    fi
} 2>/dev/null

alive() { [ -n "$born" ] && [ "$(started "$pid")" = "$born" ]; }

# Sends a signal and waits, at most so many tenths of a second, for the server's end.
stop() {
    alive || exit 0
    kill -s "$1" "$pid" 2>/dev/null
    tenths=0
    while [ "$tenths" -lt "$2" ]; do
        alive || exit 0
        sleep 0.1
        tenths=$((tenths + 1))
    done
}

pid=
born=
while IFS= read -r line; do
    pid=$line
    born=$(started "$pid")
done

stop INT 90
stop QUIT 60
stop KILL 20
