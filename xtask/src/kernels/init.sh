#!/bin/busybox sh
# First process of an emulated kernel: what a machine has mounted, the modules, then the task. What it says goes to the second serial port.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /var
ln -s /run /var/run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
exec >/dev/ttyS1 2>&1
while read -r module; do
    insmod "/modules/$module" || echo "module $module did not load"
done </modules/order
ip link set lo up
ulimit -n 20000
sh /task
poweroff -f
