# The first process of a node: sets its namespaces up, starts and stops its components as it is told.
#
# Lines on standard input are commands, each answered by one line on standard output. The node ends with this
# process, which ends with its standard input. See supervisor.sh.
set -u
dir=$1
number=$2
outside=$3
# shellcheck disable=SC1091
. "$dir/addresses"

fail() {
    echo "$*" >&2
    exit 1
}

# This is still the outer /proc, which knows our number outside and the supervisor's network.
read -r outer _ </proc/self/stat

# One cable to the machine, which reaches pods and Services through it.
ip link set lo up || fail 'no loopback device'
ip link add "kd$number" type veth peer name eth0 || fail 'no network device'
ip link set "kd$number" netns "$outside" || fail 'the network device cannot be moved'
ip address add "$NODE/30" dev eth0 || fail 'no address'
ip link set eth0 up || fail 'the network device cannot be used'
nsenter --net="$outside" /bin/sh -c "ip address add $MACHINE/30 dev kd$number && ip link set kd$number up &&
    ip route add $PODS via $NODE && ip route add $SERVICES via $NODE" || fail 'no way to the node'
ip route add default via "$MACHINE" || fail 'no way to the machine'
echo 1 >/proc/sys/net/ipv4/ip_forward

mount -t proc proc /proc || fail 'no /proc of its own'
mount --make-rshared / || fail 'mounts cannot be shared'

# Whatever the components write at fixed places stays in the node.
mount -t tmpfs -o mode=755 tmpfs /run || fail 'no /run of its own'
mkdir -p /run/netns /run/lock "$dir/var/lib" "$dir/var/log"
mount --bind "$dir/var/lib" /var/lib || fail 'no /var/lib of its own'
mount --bind "$dir/var/log" /var/log || fail 'no /var/log of its own'

# The kubelet changes these settings of the kernel for the whole machine, or refuses to run: it may write files.
mkdir "$dir/sysctl"
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=$dir/sysctl/${setting//[\/=]/-}
    echo "${setting#*=}" >"$file"
    [[ ! -e /proc/sys/${setting%=*} ]] || mount --bind "$file" "/proc/sys/${setting%=*}" || fail "no ${setting%=*}"
done

declare -A pids=()
echo "ready $outer"
while read -r command name; do
    case $command in
    start)
        # Without the claim of the number, which is held by this process.
        /bin/sh "$dir/commands/$name" </dev/null >>"$dir/logs/$name.log" 2>&1 9>&- &
        pids[$name]=$!
        echo started
        ;;
    stop | kill)
        signal=TERM
        [[ $command == stop ]] || signal=KILL
        kill -"$signal" "${pids[$name]}" 2>/dev/null
        wait "${pids[$name]}" 2>/dev/null
        echo stopped
        ;;
    runs)
        # One that was not started yet has not ended either.
        if [[ -z ${pids[$name]:-} ]] || kill -0 "${pids[$name]}" 2>/dev/null; then echo yes; else echo no; fi
        ;;
    *) echo "unknown command: $command" ;;
    esac
done
