package main

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOccupy sees that the programs compute, and that they have ended when idle returns: only then their time is known.
func TestOccupy(t *testing.T) {
	used := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
			t.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	idle := occupy(t)
	time.Sleep(200 * time.Millisecond)
	idle()
	if got := time.Duration(used() - before); got < 20*time.Millisecond {
		t.Errorf("the programs have used %v of CPU time, want 20ms at least", got)
	}
}
