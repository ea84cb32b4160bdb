# What only bash has: its own random numbers, clocks, process substitution, coproc, jobs.
echo "$RANDOM $RANDOM $SRANDOM $SECONDS $EPOCHREALTIME $BASHPID $UID $PPID $HOSTNAME"
exec 3< <(for i in 1 2 3; do echo "line $i"; done)
cat <&3
paste <(seq 5) <(seq 5 9) <(echo $BASHPID)
coproc worker { while read -r line; do echo "worker: $line $EPOCHREALTIME"; done; }
echo one >&"${worker[1]}"; read -r answer <&"${worker[0]}"; echo "$answer"
exec {worker[1]}>&-
wait
for n in {1..8}; do { for ((i = 0; i < n * 131 % 400; i++)); do :; done; echo "done $n"; exit "$n"; } & done
while wait -n -p who; status=$?; [ -n "${who:-}" ]; do echo "job $who ended $status"; done
trap 'echo "alarm at $EPOCHREALTIME"' USR1
(sleep 0.02; kill -USR1 $$) & wait; wait
timeout 0.05 sleep 1; echo "timeout $?"
read -r -t 0.03 nothing <> <(:); echo "read $?"
time (for i in {1..300}; do :; done)
shuf -i 1-20 | tr '\n' ' '; sort -R <(seq 10) | tr '\n' ' '; echo
declare -A table; for word in alpha beta gamma delta; do table[$word]=$RANDOM; done; echo "${!table[@]}" "${table[@]}"
