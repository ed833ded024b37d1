# Runs one node for a test process: claims a number, gives the node namespaces, and removes what is outside of them.
#
# Standard input is a pipe whose other end only the test process holds; its end means that the test process is
# gone, however it went. The node's first process reads it too and ends with it, and the kernel then ends every
# process of the node's process namespace: daemons, shims and containers alike. Mounts, network devices and rules
# are the node's own and go with it. Left are control groups and the directory, which this script removes.
#
# A number is claimed by a lock, which the kernel frees when its holders are gone. Whatever bears the number of a
# claim that was just taken is the rest of a run that could not clean up, such as one that ended with the machine.
set -u
node_script=$1
claims=/run/kubedaemon-cluster

# The processes of the node end by its first process; this script must live until they have.
trap : HUP INT TERM

# The node's control groups, one in each hierarchy.
groups() {
    find /sys/fs/cgroup -maxdepth 2 -type d -name "$name"
}

remove() {
    ip link delete "kd$number" 2>/dev/null
    # Processes that were killed leave their groups a moment later.
    for _ in $(seq 50); do
        groups | while read -r group; do
            find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
        done
        [ -z "$(groups)" ] && break
        sleep 0.1
    done
    rm -rf "$dir"
}

mkdir -m 700 "$claims" 2>/dev/null || [ -d "$claims" ] || exit 1
for number in $(seq 0 31); do
    exec 9>"$claims/$number.lock"
    if flock -n 9; then
        claimed=$number
        break
    fi
done
if [ -z "${claimed:-}" ]; then
    echo 'all 32 numbers of clusters are taken' >&2
    exit 1
fi
name=kubedaemon-cluster-$number
dir=/tmp/$name
remove
mkdir -m 700 "$dir" || exit 1
trap remove EXIT
echo "$number"

# The test process writes the node's files now.
read -r _ || exit 0

exec 2>"$dir/node.log"
# One hierarchy (cgroup v2), or one for each controller.
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    mkdir "/sys/fs/cgroup/$name"
else
    for controller in /sys/fs/cgroup/*/; do
        # Two controllers of one hierarchy appear twice, by links.
        [ -L "${controller%/}" ] || mkdir "$controller$name"
    done
fi
unshare --fork --kill-child --pid --mount --propagation slave --net --ipc \
    /bin/bash -c "$node_script" node "$dir" "$number" "/proc/$$/ns/net"
