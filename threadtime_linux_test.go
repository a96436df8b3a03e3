package sessplus_test

import (
	"syscall"
	"time"
	"unsafe"
)

// threadTime is the CPU time that this thread has used. A wall clock would measure the other programs, too.
func threadTime() (used time.Duration, ok bool) {
	const threadClock = 3 // CLOCK_THREAD_CPUTIME_ID
	var t syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadClock, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano()), errno == 0
}
