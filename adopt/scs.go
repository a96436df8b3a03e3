package adopt

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/sessplus/sessplus"
)

// SCS imports the sessions of github.com/alexedwards/scs/v2 from the store of the scs.SessionManager. If that had a
// Codec, pass a store that also implements it:
//
//	adopt.SCS(struct { scs.Store; scs.Codec }{store, codec}, nil)
//
// A session keeps its Deadline, and from now on, the IdleTimeout of the config applies. It is permanent if RememberMe
// was called. A store whose methods take no context must have timeouts of its own.
func SCS(store scs.Store, o *Options) sessplus.Importer {
	i := newImporter("SCS", o)
	if store == nil {
		i.bad = "the store is nil"
		return i
	}
	find := func(ctx context.Context, token string) ([]byte, bool, error) {
		if s, ok := store.(interface {
			FindCtx(ctx context.Context, token string) ([]byte, bool, error)
		}); ok {
			return s.FindCtx(ctx, token)
		}
		return store.Find(token)
	}
	remove := func(ctx context.Context, token string) error {
		if s, ok := store.(interface {
			DeleteCtx(ctx context.Context, token string) error
		}); ok {
			return s.DeleteCtx(ctx, token)
		}
		return store.Delete(token)
	}
	codec, _ := store.(scs.Codec)
	i.read = i.scs(codec, find, remove)
	return i
}

// scs returns the read function of an importer. Without a codec the sessions are gobs.
func (i *importer) scs(
	codec scs.Codec,
	find func(context.Context, string) ([]byte, bool, error),
	remove func(context.Context, string) error,
) func(context.Context, string, string) (*sessplus.Imported, error) {
	return func(ctx context.Context, _, token string) (*sessplus.Imported, error) {
		if raw, err := base64.RawURLEncoding.Strict().DecodeString(token); err != nil || len(raw) != 32 {
			return nil, errNotOurs
		}
		key := token
		if i.HashToken {
			sum := sha256.Sum256([]byte(token))
			key = base64.RawURLEncoding.EncodeToString(sum[:])
		}
		data, ok, err := find(ctx, key)
		switch {
		case err != nil:
			return nil, down(err, token, key)
		case !ok:
			return nil, errUnknown
		}
		deadline, values, err := decodeSCS(codec, data)
		if err != nil {
			return nil, errDamaged
		}
		permanent, _ := values["__rememberMe"].(bool)
		delete(values, "__rememberMe")
		return &sessplus.Imported{
			Fields:    fields(values),
			Expires:   deadline,
			Permanent: permanent,
			Forget:    func(ctx context.Context) error { return down(remove(ctx, key), token, key) },
		}, nil
	}
}

func decodeSCS(codec scs.Codec, data []byte) (deadline time.Time, values map[string]any, err error) {
	if codec != nil {
		defer func() {
			if recover() != nil {
				err = errDamaged
			}
		}()
		return codec.Decode(data)
	}
	var session struct {
		Deadline time.Time
		Values   map[string]any
	}
	if err = decodeGob(data, &session); err != nil {
		session.Deadline, session.Values, err = splitSCS(data)
	}
	return session.Deadline, session.Values, err
}
