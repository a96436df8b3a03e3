//go:build race

package sessplus_test

const raceEnabled = true
