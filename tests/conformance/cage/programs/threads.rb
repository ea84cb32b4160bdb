# Threads, queues, random numbers, hashes, garbage, processes.
require 'securerandom'
require 'tmpdir'
puts [Time.now.to_f, Process.pid, Process.clock_gettime(Process::CLOCK_MONOTONIC), rand, SecureRandom.hex(8), 'text'.hash, Object.new.object_id].inspect
log = []
threads = 6.times.map { |me| Thread.new { 300.times { |step| log << me; sleep 0.0003 if step % 70 == me; 'x' * 2000 } } }
threads.each(&:join)
puts log.join
queue = Queue.new
results = Queue.new
workers = 4.times.map { |me| Thread.new { while (job = queue.pop) != :end; results << [me, job]; end } }
50.times { |n| queue << n }
4.times { queue << :end }
workers.each(&:join)
puts results.size.times.map { results.pop }.inspect
lock = Mutex.new
count = 0
8.times.map { Thread.new { 2000.times { lock.synchronize { count += 1 } } } }.each(&:join)
puts count
pids = 4.times.map { |n| fork { sleep 0.002 * (n * 3 % 4); puts "child #{n}"; exit n } }
puts pids.map { Process.wait2[1].exitstatus }.inspect
puts Dir.children('/work/tree').inspect
puts Dir.mktmpdir
GC.start
puts GC.stat.slice(:count, :total_allocated_objects).inspect
