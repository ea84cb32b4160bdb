"""Eight threads, a queue, locks, events, a pool of processes, asyncio and subprocesses."""
import asyncio, concurrent.futures, multiprocessing, queue, subprocess, sys, threading, time

log = []
sys.setswitchinterval(1e-5)


def count(me):
    for step in range(300):
        log.append(me)
        if step % 60 == me:
            time.sleep(0.0005)


threads = [threading.Thread(target=count, args=(me,)) for me in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("".join(map(str, log)))

jobs, results = queue.Queue(), queue.Queue()


def work():
    while (job := jobs.get()) is not None:
        results.put((threading.current_thread().name, job, sum(range(job * 100))))


workers = [threading.Thread(target=work, name=f"w{n}") for n in range(4)]
[worker.start() for worker in workers]
[jobs.put(n) for n in range(60)]
[jobs.put(None) for _ in workers]
[worker.join() for worker in workers]
print([results.get()[:2] for _ in range(60)])


def square(n):
    return n * n, multiprocessing.current_process().name


if __name__ == "__main__":
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(lambda n=n: (n, threading.current_thread().name)) for n in range(20)]
        print([future.result() for future in concurrent.futures.as_completed(futures)])
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        print(list(pool.imap_unordered(square, range(12))))

    async def step(n):
        await asyncio.sleep(0.001 * (n * 7 % 5))
        return n

    async def main():
        child = await asyncio.create_subprocess_exec("sh", "-c", "echo from a child; sleep 0.01", stdout=subprocess.PIPE)
        done = [await future for future in asyncio.as_completed([step(n) for n in range(10)])]
        out, _ = await child.communicate()
        return done, out

    print(asyncio.run(main()))
    children = [subprocess.Popen(["sh", "-c", f"sleep 0.00{9 - n}; echo child {n}"]) for n in range(5)]
    print([child.wait() for child in children])
    print(time.time_ns())
