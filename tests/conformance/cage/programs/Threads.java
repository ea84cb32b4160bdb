import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

/** Threads, pools, identity hashes, random numbers and a lot of garbage. */
public class Threads {
    public static void main(String[] arguments) throws Exception {
        System.out.println(System.currentTimeMillis() + " " + System.nanoTime() + " " + ProcessHandle.current().pid());
        System.out.println(new Object().hashCode() + " " + new Random().nextLong() + " " + UUID.randomUUID() + " " + Math.random());
        System.out.println(Set.of("a", "b", "c", "d", "e") + " " + Map.of(1, 2, 3, 4, 5, 6));
        System.out.println(Runtime.getRuntime().availableProcessors() + " " + ThreadLocalRandom.current().nextInt());
        ConcurrentLinkedQueue<String> order = new ConcurrentLinkedQueue<>();
        ExecutorService pool = Executors.newFixedThreadPool(6);
        List<Future<Integer>> results = new ArrayList<>();
        for (int job = 0; job < 60; job++) {
            int mine = job;
            results.add(pool.submit(() -> {
                List<byte[]> garbage = new ArrayList<>();
                for (int i = 0; i < 200; i++) garbage.add(new byte[8192]);
                order.add(Thread.currentThread().getName().replaceAll(".*-", "") + "." + mine);
                if (mine % 7 == 0) Thread.sleep(1);
                return garbage.size();
            }));
        }
        int total = 0;
        for (Future<Integer> result : results) total += result.get();
        pool.shutdown();
        System.out.println(total + " " + order);
        Map<String, Long> shares = IntStream.range(0, 5000).parallel().mapToObj(i -> i).collect(Collectors.toConcurrentMap(i -> i, i -> Thread.currentThread().getName())).values().stream().collect(Collectors.groupingBy(name -> name, TreeMap::new, Collectors.counting()));
        System.out.println(shares);
        long counter[] = {0};
        Thread[] threads = new Thread[4];
        for (int t = 0; t < 4; t++) (threads[t] = new Thread(() -> { for (int i = 0; i < 20000; i++) synchronized (counter) { counter[0]++; } })).start();
        for (Thread thread : threads) thread.join();
        System.gc();
        System.out.println(counter[0] + " " + Runtime.getRuntime().freeMemory() + " " + Runtime.getRuntime().totalMemory());
    }
}
