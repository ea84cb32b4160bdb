# Run under strict on two hosts with different kernels, processors, dates and control groups: what it says may not differ.
date
uname -a
echo "$$ $PPID $(id -u) $(pwd) $(umask)"
env | sort
ls -lai / /bin | md5sum
stat -c '%n %i %h %s %b %Y' / /bin/busybox /proc /dev/null
cat /proc/cpuinfo /proc/meminfo /proc/version /proc/uptime /proc/loadavg /proc/stat | md5sum
cat /proc/self/status | grep -v -e Vm -e Rss
head -c 32 /dev/urandom | md5sum
cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id
for worker in 1 2 3 4; do (sleep "$worker"; echo "worker $worker at $(date +%s)") & done
wait
seq 2000 | sort -r | md5sum
tar -c -f - /etc /bin 2>/dev/null | md5sum
mkdir /out/folder
date >/out/folder/date
ls -l --full-time /out/folder
df | md5sum
ps
