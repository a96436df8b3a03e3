package sessplussql_test

import (
	"testing"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/sessplustest"
)

// SPEC 13.1
func TestBackend(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		sessplustest.TestBackend(t, func(*testing.T) sessplus.Backend { return d.backend })
	})
}
