// Goroutines, select, maps, random numbers, garbage and clocks with eight processors asked for.
package main

import (
	"crypto/rand"
	"fmt"
	"hash/fnv"
	mathrand "math/rand"
	"os"
	"runtime"
	"sync"
	"time"
)

func main() {
	runtime.GOMAXPROCS(8)
	fmt.Println("now", time.Now().UnixNano(), "pid", os.Getpid(), "cpus", runtime.NumCPU())
	order := fnv.New64a()
	ages := map[int]int{}
	for i := 0; i < 30; i++ {
		ages[i] = i * i
	}
	for key := range ages {
		fmt.Print(key, " ")
	}
	fmt.Println()
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		panic(err)
	}
	mathrand.Seed(time.Now().UnixNano())
	fmt.Printf("random %x %d\n", key, mathrand.Int63())

	left, right, done := make(chan int), make(chan int), make(chan bool)
	for worker := 0; worker < 8; worker++ {
		go func(worker int) {
			for i := 0; i < 50; i++ {
				if worker%2 == 0 {
					left <- worker
				} else {
					right <- worker
				}
			}
			done <- true
		}(worker)
	}
	for finished := 0; finished < 8; {
		select {
		case from := <-left:
			order.Write([]byte{byte(from)})
		case from := <-right:
			order.Write([]byte{byte(100 + from)})
		case <-done:
			finished++
		}
	}
	fmt.Printf("select order %x\n", order.Sum64())

	var lock sync.Mutex
	var group sync.WaitGroup
	kept := make([][]byte, 0)
	for worker := 0; worker < 8; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			for i := 0; i < 200; i++ {
				piece := make([]byte, 16*1024)
				piece[0] = byte(worker)
				lock.Lock()
				if i%20 == 0 {
					kept = append(kept, piece)
				}
				order.Write(piece[:1])
				lock.Unlock()
				if i%50 == 0 {
					runtime.Gosched()
				}
			}
		}(worker)
	}
	group.Wait()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	fmt.Printf("mutex order %x, kept %d, collections %d, mallocs %d, heap %d\n", order.Sum64(), len(kept), memory.NumGC, memory.Mallocs, memory.HeapAlloc)

	ticker, out := time.NewTicker(3*time.Millisecond), time.After(20*time.Millisecond)
	for ticks := 0; ; {
		select {
		case at := <-ticker.C:
			ticks++
			fmt.Println("tick", ticks, at.UnixNano())
			continue
		case <-out:
		}
		break
	}
	fmt.Printf("%p %d goroutines\n", &order, runtime.NumGoroutine())
}
