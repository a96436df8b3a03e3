//go:build nofirestore

package main

import (
	"context"
	"errors"
	"io"

	"github.com/sessplus/sessplus"
)

func openFirestore(context.Context, string) (sessplus.Backend, io.Closer, error) {
	return nil, nil, errors.New("this program was built without Firestore: run it again with -tags ''")
}
