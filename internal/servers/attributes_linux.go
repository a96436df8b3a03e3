package servers

import "syscall"

// attributes puts a server into a process group of its own, which ends with the tests even if those are killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
