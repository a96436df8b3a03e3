// Package aged lets tests of device-bound sessions begin an hour after the registration.
package aged

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

// Keys is a backend of which all keys look as if they had been registered an hour ago: no request is under way any more
// that could not know of them.
type Keys struct{ sessplus.Backend }

// KeepsDeviceKeys implements [sessplus.DeviceKeeper].
func (Keys) KeepsDeviceKeys() {}

// Load implements [sessplus.Backend].
func (b Keys) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	r, err := b.Backend.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	if part := strings.Split(r.DeviceKey, "."); len(part) == 3 {
		part[1] = strconv.FormatInt(time.Now().Add(-time.Hour).UnixMilli(), 10)
		aged := *r
		aged.DeviceKey = strings.Join(part, ".")
		return &aged, nil
	}
	return r, nil
}

// Owned implements [sessplus.Indexer], if the backend is one.
func (b Keys) Owned(ctx context.Context, owner string) ([]sessplus.KeyedRecord, error) {
	return b.Backend.(sessplus.Indexer).Owned(ctx, owner)
}
