//! Threads, channels, hash maps, clocks and processes as Rust's standard library has them.
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, RwLock, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, process, thread};

fn main() {
    println!("now {:?} pid {}", SystemTime::now().duration_since(UNIX_EPOCH), process::id());
    println!("hash {:016x}", RandomState::new().hash_one("seed"));
    let map: HashMap<u32, u32> = (0..20).map(|n| (n, n * n)).collect();
    println!("map {map:?}");
    println!("set {:?}", ["a", "b", "c", "d", "e"].into_iter().collect::<HashSet<_>>());
    println!("parallelism {:?} exe {:?}", thread::available_parallelism(), env::args().next());

    let (sender, receiver) = mpsc::channel();
    let threads: Vec<_> = (0..6)
        .map(|me| {
            let sender = sender.clone();
            thread::spawn(move || {
                for step in 0..40 {
                    if step % 10 == me {
                        thread::sleep(Duration::from_micros(200));
                    }
                    sender.send((me, step)).expect("the receiver waits");
                }
            })
        })
        .collect();
    drop(sender);
    let order: Vec<String> = receiver.iter().map(|(me, step)| format!("{me}.{step}")).collect();
    println!("channel {}", order.join(" "));
    threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));

    let next = Arc::new(AtomicUsize::new(0));
    let log = Arc::new(Mutex::new(Vec::new()));
    let barrier = Arc::new(Barrier::new(4));
    let board = Arc::new(RwLock::new(0u64));
    let bell = Arc::new((Mutex::new(0), Condvar::new()));
    thread::scope(|scope| {
        for me in 0..4u64 {
            let (next, log, barrier, board, bell) = (&next, &log, &barrier, &board, &bell);
            scope.spawn(move || {
                for _ in 0..25 {
                    let ticket = next.fetch_add(1, Ordering::SeqCst);
                    *board.write().expect("not poisoned") += me * ticket as u64;
                    log.lock().expect("not poisoned").push(me);
                    if barrier.wait().is_leader() {
                        *bell.0.lock().expect("not poisoned") += 1;
                        bell.1.notify_all();
                    }
                }
            });
        }
        let mut rung = bell.0.lock().expect("not poisoned");
        while *rung < 25 {
            rung = bell.1.wait(rung).expect("not poisoned");
        }
    });
    println!("board {} log {:?}", board.read().expect("not poisoned"), log.lock().expect("not poisoned"));

    let started = Instant::now();
    thread::sleep(Duration::from_millis(20));
    println!("slept {:?}", started.elapsed());
    println!("heap {:p}", Box::new(1));
}
