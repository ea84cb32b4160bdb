# Programs of the conformance corpus, linked against the C library in /lib, under strict on two hosts: where things lie in memory, clocks, files, threads.
cd /work
for program in *; do
  rm -rf /tmp/* # as if it were the first
  "./$program" >/tmp/said 2>&1
  echo "$program: status $?, $(md5sum </tmp/said)"
  cp /tmp/said "/out/$program"
done
cat /out/addresses
