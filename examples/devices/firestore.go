//go:build !nofirestore

package main

import (
	"context"
	"fmt"
	"io"

	"cloud.google.com/go/firestore"

	"github.com/sessplus/sessplus"
)

func openFirestore(ctx context.Context, project string) (sessplus.Backend, io.Closer, error) {
	client, err := firestore.NewClient(ctx, project)
	if err != nil {
		return nil, nil, fmt.Errorf("opening Firestore project %s: %w", project, err)
	}
	return sessplus.Firestore(client, "sessions"), client, nil
}
