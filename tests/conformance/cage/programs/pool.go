// A pool of workers that compute long enough to be preempted, with garbage collections meanwhile.
package main

import (
	"fmt"
	"runtime"
	"sync"
)

func collatz(n uint64) (steps uint64) {
	for ; n != 1; steps++ {
		if n%2 == 0 {
			n /= 2
		} else {
			n = 3*n + 1
		}
	}
	return
}

func main() {
	runtime.GOMAXPROCS(8)
	work, results := make(chan uint64, 16), make(chan [2]uint64, 16)
	var group sync.WaitGroup
	for worker := uint64(0); worker < 8; worker++ {
		group.Add(1)
		go func(worker uint64) {
			defer group.Done()
			for from := range work {
				best := uint64(0)
				for n := from; n < from+4000; n++ {
					if s := collatz(n); s > best {
						best = s
					}
				}
				_ = make([]byte, 1<<16)
				results <- [2]uint64{worker, best}
			}
		}(worker)
	}
	go func() {
		for from := uint64(1); from < 800000; from += 4000 {
			work <- from
		}
		close(work)
		group.Wait()
		close(results)
	}()
	shares, best := [8]int{}, uint64(0)
	digest := uint64(14695981039346656037)
	for result := range results {
		shares[result[0]]++
		digest = (digest ^ result[0]) * 1099511628211
		if result[1] > best {
			best = result[1]
		}
	}
	fmt.Println("best", best, "shares", shares, "order", digest)
}
