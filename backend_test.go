package sessplus_test

import (
	"testing"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"github.com/sessplus/sessplus/sessplustest"
)

func TestMain(m *testing.M) { servers.Main(m) }

// The backends that keep records, each with a place of its own for every test.
var backends = []struct {
	name string
	open func(t *testing.T) sessplus.Backend
}{
	{"memory", func(*testing.T) sessplus.Backend { return sessplus.Memory() }},
	{"redis", func(t *testing.T) sessplus.Backend { return sessplus.Redis(servers.Redis(t)) }},
	{"firestore", func(t *testing.T) sessplus.Backend { return sessplus.Firestore(servers.Firestore(t), "sessions") }},
}

// onEveryBackend runs the test on each backend that keeps records.
func onEveryBackend(t *testing.T, test func(t *testing.T, b sessplus.Backend)) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { test(t, b.open(t)) })
	}
}

func TestConformance(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { sessplustest.TestBackend(t, b.open) })
	}
}
