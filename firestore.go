package sessplus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Firestore keeps each record as one document of the collection: a map of fields, and expires_at, a timestamp for a TTL
// policy of the database, which removes expired documents. Documents that it has not removed yet count as removed. A
// document holds at most 1 MiB, and takes about one sustained write a second.
func Firestore(client *firestore.Client, collection string) Backend {
	return &firestoreBackend{client, collection}
}

type firestoreBackend struct {
	client     *firestore.Client
	collection string
}

func (b *firestoreBackend) String() string { return "firestore" }

func (b *firestoreBackend) problem() string {
	switch {
	case b.client == nil:
		return "the Firestore client is nil"
	case b.client.Collection(b.collection) == nil:
		return "the Firestore collection has no valid path: an odd number of names, separated by slashes"
	}
	return ""
}

// The parts of a document. A field's name is a key of the map "fields", so that it cannot meet another part.
const (
	docVersion   = "version"
	docCreated   = "created_at"
	docSaved     = "saved_at"
	docExpires   = "expires_at"
	docPermanent = "permanent"
	docFields    = "fields"

	firestoreVersion = 1
)

// firestoreName makes a field's name fit for a key of a map, which must not match __.*__; "~" escapes it, and itself.
func firestoreName(name string) string {
	if strings.HasPrefix(name, "__") || strings.HasPrefix(name, "~") {
		return "~" + name
	}
	return name
}

// firestoreValue is text where it can be, so that a person can read it in the console.
func firestoreValue(value []byte) any {
	if utf8.Valid(value) {
		return string(value)
	}
	return value
}

// doc returns the document of a key. A slash would begin a collection in it.
func (b *firestoreBackend) doc(key string) *firestore.DocumentRef {
	return b.client.Collection(b.collection).Doc(strings.NewReplacer("%", "%25", "/", "%2F").Replace(key))
}

// decodeFirestore makes a record of the data of a document, which may have expired.
func decodeFirestore(data map[string]any, updated time.Time) (*Record, error) {
	version, ok0 := data[docVersion].(int64)
	if ok0 && version != firestoreVersion {
		return nil, fmt.Errorf("%w: it has a later format", ErrNoRecord)
	}
	created, ok1 := data[docCreated].(time.Time)
	saved, ok2 := data[docSaved].(time.Time)
	expires, ok3 := data[docExpires].(time.Time)
	permanent, ok4 := data[docPermanent].(bool)
	fields, ok5 := data[docFields].(map[string]any)
	corrupt := fmt.Errorf("%w: it is corrupt", ErrNoRecord)
	if !ok0 || !ok1 || !ok2 || !ok3 || !ok4 || !ok5 {
		return nil, corrupt
	}
	r := &Record{Created: created, Saved: saved, Expires: expires, Permanent: permanent}
	r.Version = updated.Format(time.RFC3339Nano)
	r.Fields = make([]RawField, 0, len(fields))
	for name, value := range fields {
		name = strings.TrimPrefix(name, "~")
		switch value := value.(type) {
		case string:
			r.Fields = append(r.Fields, RawField{name, []byte(value)})
		case []byte:
			r.Fields = append(r.Fields, RawField{name, value})
		default:
			return nil, corrupt
		}
	}
	return r, nil
}

func encodeFirestore(r *Record) map[string]any {
	fields := make(map[string]any, len(r.Fields))
	for _, f := range r.Fields {
		fields[firestoreName(f.Name)] = firestoreValue(f.Value)
	}
	return map[string]any{
		docVersion: firestoreVersion, docCreated: r.Created, docSaved: r.Saved, docExpires: r.Expires,
		docPermanent: r.Permanent, docFields: fields,
	}
}

// updates lists what the change has made of before, field path by field path.
func (c *Change) firestoreUpdates(before, after *Record) []firestore.Update {
	var list []firestore.Update
	add := func(value any, path ...string) {
		list = append(list, firestore.Update{FieldPath: path, Value: value})
	}
	for _, f := range c.Set {
		add(firestoreValue(f.Value), docFields, firestoreName(f.Name))
	}
	for _, name := range c.Delete {
		add(firestore.Delete, docFields, firestoreName(name))
	}
	if !after.Saved.Equal(before.Saved) {
		add(after.Saved, docSaved)
	}
	if !after.Expires.Equal(before.Expires) {
		add(after.Expires, docExpires)
	}
	if after.Permanent != before.Permanent {
		add(after.Permanent, docPermanent)
	}
	return list
}

// firestoreError keeps of an error what is fit for a log. The text of a status names the document, and may quote it.
func firestoreError(err error) error {
	for _, own := range []error{ErrNoRecord, ErrRecordExists, ErrConflict, ErrTooLarge} {
		if errors.Is(err, own) {
			return err
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("firestore: %w", context.DeadlineExceeded)
	}
	switch code := status.Code(err); code {
	case codes.OK:
		return nil
	case codes.NotFound:
		return ErrNoRecord
	case codes.DeadlineExceeded:
		return fmt.Errorf("firestore: %w", context.DeadlineExceeded)
	case codes.InvalidArgument:
		if text := status.Convert(err).Message(); strings.Contains(text, "size") || strings.Contains(text, "longer than") {
			return fmt.Errorf("firestore: %w for a document", ErrTooLarge)
		}
		return fmt.Errorf("firestore answers %s", code)
	default:
		return fmt.Errorf("firestore answers %s", code)
	}
}

func (b *firestoreBackend) Load(ctx context.Context, key string) (*Record, error) {
	snap, err := b.doc(key).Get(ctx)
	if err != nil {
		return nil, firestoreError(err)
	}
	r, err := decodeFirestore(snap.Data(), snap.UpdateTime)
	if err == nil && !r.Expires.After(time.Now()) {
		return nil, ErrNoRecord
	}
	return r, err
}

func (b *firestoreBackend) Create(ctx context.Context, key string, r *Record) error {
	doc := b.doc(key)
	_, err := doc.Create(ctx, encodeFirestore(r))
	if status.Code(err) != codes.AlreadyExists {
		return firestoreError(err)
	}
	return b.transact(ctx, doc, func(tx *firestore.Transaction, old *Record) error {
		if old != nil {
			return ErrRecordExists
		}
		return tx.Set(doc, encodeFirestore(r))
	})
}

// Update writes in one call if the document is still as the caller saw it. Otherwise it reads and writes in a transaction.
func (b *firestoreBackend) Update(ctx context.Context, key string, c *Change) (Result, error) {
	doc := b.doc(key)
	if c.Seen != nil && c.Seen.Version != "" {
		seen, err := time.Parse(time.RFC3339Nano, c.Seen.Version)
		after := c.Seen.clone()
		result, applied := c.Apply(after)
		updates := c.firestoreUpdates(c.Seen, after)
		if err == nil && applied == nil && len(updates) > 0 {
			wrote, err := doc.Update(ctx, updates, firestore.LastUpdateTime(seen))
			switch status.Code(err) {
			case codes.OK:
				result.Version = wrote.UpdateTime.Format(time.RFC3339Nano)
				return result, nil
			case codes.FailedPrecondition, codes.Aborted: // another request was faster
			default:
				return Result{}, firestoreError(err)
			}
		}
	}
	var result Result
	err := b.transact(ctx, doc, func(tx *firestore.Transaction, r *Record) error {
		if r == nil {
			return ErrNoRecord
		}
		before := r.clone()
		var err error
		if result, err = c.Apply(r); err != nil {
			return err
		}
		if updates := c.firestoreUpdates(before, r); len(updates) > 0 {
			return tx.Update(doc, updates)
		}
		return nil
	})
	return result, err
}

// transact calls f with the record of the document, nil if there is none that is alive, until nobody else writes it
// meanwhile or ctx is done.
func (b *firestoreBackend) transact(ctx context.Context, doc *firestore.DocumentRef, f func(*firestore.Transaction, *Record) error) error {
	for {
		err := b.client.RunTransaction(ctx, func(_ context.Context, tx *firestore.Transaction) error {
			snap, err := tx.Get(doc)
			if status.Code(err) == codes.NotFound {
				return f(tx, nil)
			}
			if err != nil {
				return err
			}
			r, err := decodeFirestore(snap.Data(), snap.UpdateTime)
			if err == nil && r.Expires.After(time.Now()) {
				return f(tx, r)
			}
			return f(tx, nil)
		})
		if status.Code(err) != codes.Aborted {
			return firestoreError(err)
		}
		select {
		case <-ctx.Done():
			return firestoreError(err)
		case <-time.After(rand.N(20 * time.Millisecond)):
		}
	}
}

func (b *firestoreBackend) Take(ctx context.Context, key string) (*Record, error) {
	doc := b.doc(key)
	var taken *Record
	err := b.transact(ctx, doc, func(tx *firestore.Transaction, r *Record) error {
		if r == nil {
			return ErrNoRecord
		}
		taken = r
		return tx.Delete(doc)
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}

func (b *firestoreBackend) Delete(ctx context.Context, key string) error {
	_, err := b.doc(key).Delete(ctx)
	return firestoreError(err)
}
