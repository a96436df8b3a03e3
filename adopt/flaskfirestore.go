//go:build !nofirestore

package adopt

import (
	"context"
	"crypto/sha1"
	"regexp"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/sessplus/sessplus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FlaskFirestore imports the sessions that flask-session-plus has stored in a collection of Firestore, under "session"
// and the id. secret is the application's SECRET_KEY if use_signer was set, and otherwise "". The id must be a UUID,
// which is what the library generates.
//
// Fields that are references or geopoints are lost.
func FlaskFirestore(c *firestore.Client, collection, secret string, o *Options) sessplus.Importer {
	i := newImporter("FlaskFirestore", o)
	if c == nil {
		i.bad = "the client is nil"
		return i
	}
	documents := c.Collection(collection)
	if documents == nil {
		i.bad = "the collection is no path of one"
	}
	key := mac(sha1.New, []byte(secret), "flask-session")
	prefix := i.prefix("session")
	i.read = func(ctx context.Context, _, id string) (*sessplus.Imported, error) {
		if secret != "" {
			var ok bool
			if id, ok = verify(sha1.New, key, id); !ok {
				return nil, errForged
			}
		}
		if !uuid.MatchString(id) {
			return nil, errNotOurs
		}
		doc := documents.Doc(prefix + id)
		if doc == nil {
			return nil, errUnknown
		}
		snapshot, err := doc.Get(ctx)
		switch {
		case status.Code(err) == codes.NotFound:
			return nil, errUnknown
		case err != nil:
			return nil, down(err, id)
		}
		values := snapshot.Data()
		expires, ok := values["_expiration"].(time.Time)
		if !ok {
			return nil, errDamaged
		}
		permanent := truth(values["_permanent"])
		delete(values, "_expiration")
		delete(values, "_permanent")
		return &sessplus.Imported{
			Fields:    fields(values),
			Expires:   expires,
			Permanent: permanent,
			Forget: func(ctx context.Context) error {
				_, err := doc.Delete(ctx)
				return down(err, id)
			},
		}, nil
	}
	return i
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// isReference reports whether the value is one of Firestore's that a session cannot hold.
func isReference(v any) bool {
	switch v.(type) {
	case *firestore.DocumentRef, interface{ GetLatitude() float64 }: // and a geopoint
		return true
	}
	return false
}
