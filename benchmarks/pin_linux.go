package main

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// onOwnCPU is what makes redis-server stay on the last CPU, where there are several.
func onOwnCPU() []string {
	if runtime.NumCPU() < 2 {
		return nil
	}
	return []string{"--server_cpulist", strconv.Itoa(runtime.NumCPU() - 1)}
}

// leaveLastCPU keeps this process off the last CPU until back is called.
func leaveLastCPU() (back func(), err error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, err
	}
	most := all
	if most.Clear(runtime.NumCPU() - 1); most.Count() == 0 {
		most = all
	}
	return func() { moveThreads(&all) }, moveThreads(&most)
}

// moveThreads lets all threads run on the CPUs of the set. Later threads inherit it.
func moveThreads(set *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, set); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// cpuTime is what this process has used, in nanoseconds. Other programs on the machine hardly matter to it.
func cpuTime() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
