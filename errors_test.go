package sessplus_test

import (
	"fmt"
	"testing"

	"github.com/sessplus/sessplus"
)

func TestErrorNamesThePackageOnce(t *testing.T) {
	t.Parallel()
	wrapped := fmt.Errorf("%w: %w", sessplus.ErrUnavailable, sessplus.ErrTaken)
	for _, tt := range []struct {
		err  sessplus.Error
		want string
	}{
		{sessplus.Error{Cookie: "a", Op: "save", Err: wrapped},
			`sessplus: cookie "a": save: backend unavailable: the record is taken by somebody else`},
		{sessplus.Error{Op: "load", Err: sessplus.ErrUnavailable}, "sessplus: load: backend unavailable"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("Error() = %q, want %q", got, tt.want)
		}
	}
}
