package sessplus_test

import (
	"testing"

	"github.com/sessplus/sessplus/sessplustest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			sessplustest.TestBackend(t, b.open)
		})
	}
}
