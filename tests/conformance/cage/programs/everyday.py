"""Where Python meets the host: hashes, sets, clocks, random numbers, addresses, files."""
import hashlib, os, platform, random, secrets, socket, sys, tempfile, threading, time, uuid

print(time.time_ns(), time.monotonic_ns(), time.perf_counter_ns(), time.process_time_ns(), time.strftime("%c %Z"))
print(hash("text"), {"alpha", "beta", "gamma", "delta"}, id(object()), object())
print(random.random(), random.Random().randrange(10**9), secrets.token_hex(8), os.urandom(8).hex())
print(uuid.uuid1(), uuid.uuid4(), hex(uuid.getnode()))
print(os.getpid(), os.getppid(), threading.get_ident(), threading.get_native_id())
print(platform.platform(), platform.node(), socket.gethostname(), os.cpu_count(), os.sched_getaffinity(0), os.getloadavg())
print(tempfile.mkdtemp(), tempfile.NamedTemporaryFile().name)
print(os.listdir("/work/tree"), [entry.inode() for entry in os.scandir("/work/tree")])
print(os.stat("/work/tree"), os.statvfs("/"), os.times())
print(sorted(os.environ), os.getcwd(), sys.flags.hash_randomization)
with open("/out/file", "w") as file:
    file.write("x" * 5000)
print(os.stat("/out/file"))
print(hashlib.sha256(open("/proc/self/maps", "rb").read()).hexdigest())
