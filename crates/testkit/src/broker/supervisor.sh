# Runs one RabbitMQ node and its port mapper for a test process.
#
# Standard input is a pipe whose other end only the test process holds. Lines on it are commands, each answered by
# one line on standard output; its end means that the test process is gone, however it went, and then everything
# that was started here is killed and the run directory removed.
set -u
dir=$1
server=
mapper=

cleanup() {
    [ -n "$server" ] && kill -KILL "$server" 2>/dev/null
    [ -n "$mapper" ] && kill -KILL "$mapper" 2>/dev/null
    wait
    # Helpers of a killed node may write for another moment.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        rm -rf "$dir" 2>/dev/null && return
        sleep 0.1
    done
}

# RABBITMQ_ALLOW_INPUT makes the server's script replace itself by the node, as everything before it does, so that $!
# is the node.
serve() {
    if [ -n "${KUBEDAEMON_RABBITMQ_ROOT:-}" ]; then
        exec /bin/sh "$dir/enter.sh" rabbitmq-server
    fi
    exec /usr/lib/rabbitmq/bin/rabbitmq-server
}

mkdir -m 700 "$dir" || exit 1
trap cleanup EXIT
trap 'exit 143' HUP INT TERM

epmd >/dev/null 2>&1 &
mapper=$!
echo ready

while read -r command; do
    case $command in
    start)
        serve >>"$dir/console.log" 2>&1 &
        server=$!
        echo "$server"
        ;;
    stop)
        kill -TERM "$server" 2>/dev/null
        echo asked
        ;;
    kill)
        kill -KILL "$server" 2>/dev/null
        echo asked
        ;;
    reap)
        wait "$server" 2>/dev/null
        server=
        echo reaped
        ;;
    *) echo "unknown command: $command" ;;
    esac
done
