# Runs a program of RabbitMQ, `enter.sh PROGRAM [ARGUMENT…]`, in the root directory of another release than the
# machine's own: see tools/rabbitmq. $KUBEDAEMON_RABBITMQ_ROOT names that directory, $HOME the broker's run directory.
#
# The mounts live in a namespace of this process alone, so that they are gone with it, however it ends. It becomes the
# program: its process id is the program's.
set -eu

if [ "$1" != --entered ]; then
    exec unshare --mount --propagation private /bin/sh "$0" --entered "$@"
fi
program=$2
shift 2

root=$KUBEDAEMON_RABBITMQ_ROOT
# What is mounted is not the run directory itself: its name would be left in a root that serves many brokers.
runs=${HOME%/*}
[ -d "$root$runs" ] || mkdir -p "$root$runs"
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind "$runs" "$root$runs"
exec chroot "$root" "/usr/lib/rabbitmq/bin/$program" "$@"
