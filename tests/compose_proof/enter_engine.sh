# The first process of the engine's namespaces: makes the engine's tree the root and runs dockerd in it.
#
# enter_engine.sh TREE SOCKETS OPTION…
set -e
tree=$1 sockets=$2
shift 2

mount --make-rprivate /
mount --bind "$tree" "$tree"
cd "$tree"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p run/sockets old
mount --bind "$sockets" run/sockets
cp --remove-destination /etc/resolv.conf etc/resolv.conf
cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/
pivot_root . old
cd /
umount --lazy /old
ip link set lo up

dockerd --host unix:///run/sockets/docker.sock --exec-root /run/docker --pidfile /run/docker.pid \
    --data-root /var/lib/docker --storage-driver overlay2 --ip6tables=false "$@" &
# The shell stays: as process 1 of its namespace it has to reap what the engine leaves behind.
trap 'kill -TERM $!' TERM
wait $! || wait $!
