//go:build !linux

package sessplus_test

import "time"

func threadTime() (used time.Duration, ok bool) { return 0, false }
