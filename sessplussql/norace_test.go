//go:build !race

package sessplussql_test

// The race detector makes the making of 10,000 sessions take minutes, and finds nothing in the last that the first have
// not.
func init() { manySessions = 10_000 }
