# What shell scripts do without thinking of it.
echo "pid $$ parent $PPID"
date +%s.%N
mktemp /tmp/one.XXXXXX
for n in 1 2 3 4 5 6; do (i=0; while [ $i -lt $((n * 97 % 300)) ]; do i=$((i + 1)); done; echo "job $n") & done
wait
for n in 1 2 3; do (sleep 0.0$n; echo "slept $n $(date +%N)") & done
wait
echo a b c | tr ' ' '\n' | while read -r letter; do echo "$letter $(cat /proc/self/stat | cut -d' ' -f1,22)"; done
yes | head -n 100000 | wc -c
ls -la /work/tree /tmp
times
find / -xdev -newer /work/tree -name 'one.*'
od -An -tx1 -N16 /dev/urandom
cat /proc/loadavg /proc/uptime
uname -a
