package main

import (
	"os/exec"
	"runtime"
	"sync"
	"testing"
)

// occupy lets as many programs as there are CPUs compute for nothing, so that whoever wakes up finds no idle one. They
// end when idle is called, or with this process.
func occupy(tb testing.TB) (idle func()) {
	var stops []func()
	idle = sync.OnceFunc(func() {
		for _, stop := range stops {
			stop()
		}
	})
	tb.Cleanup(idle)
	for range runtime.NumCPU() {
		loop := exec.Command("sh", "-c", "while kill -0 $PPID; do :; done")
		if err := loop.Start(); err != nil {
			tb.Fatal(err)
		}
		stops = append(stops, func() {
			loop.Process.Kill()
			loop.Wait()
		})
	}
	return idle
}
