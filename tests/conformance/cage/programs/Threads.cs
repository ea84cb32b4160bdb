// Mono: threads, tasks, random numbers, hashes, clocks, garbage.
using System;
using System.Collections.Concurrent;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

class Threads {
    static void Main() {
        Console.WriteLine("{0} {1} {2} {3}", DateTime.UtcNow.Ticks, Environment.TickCount, Guid.NewGuid(), new Random().Next());
        Console.WriteLine("{0} {1} {2}", "text".GetHashCode(), new object().GetHashCode(), Environment.ProcessorCount);
        var order = new ConcurrentQueue<string>();
        var threads = Enumerable.Range(0, 6).Select(me => new Thread(() => {
            for (int step = 0; step < 60; step++) {
                order.Enqueue(me + "." + step);
                if (step % 20 == me) Thread.Sleep(1);
                GC.KeepAlive(new byte[4096]);
            }
        })).ToList();
        threads.ForEach(thread => thread.Start());
        threads.ForEach(thread => thread.Join());
        Console.WriteLine(string.Join(" ", order));
        var tasks = Enumerable.Range(0, 20).Select(n => Task.Run(() => { order.Enqueue("t" + n); return n * n; })).ToArray();
        Task.WaitAll(tasks);
        Console.WriteLine(string.Join(" ", order.Skip(360)) + " " + tasks.Sum(task => task.Result) + " " + GC.CollectionCount(0));
    }
}
