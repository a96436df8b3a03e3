//go:build !nofirestore

package sessplus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Firestore returns a backend that stores each record as a document of the collection. Set a TTL policy on the
// timestamp expires_at to have the database remove expired documents; until it does, they count as removed. A document
// holds at most 1 MiB, and sustains about one write a second.
//
// A field that was edited in the console reads as what it shows: a number, bool, null, array, map or time as JSON and,
// with the JSON codec, text that is not JSON as that text. A geopoint, a reference or broken JSON makes that field
// absent. A saved_at, created_at or expires_at that is not a timestamp makes the whole session unreadable.
func Firestore(client *firestore.Client, collection string) Backend {
	return &firestoreBackend{client, collection}
}

type firestoreBackend struct {
	database   *firestore.Client
	collection string
}

func (b *firestoreBackend) String() string { return "firestore" }

func (b *firestoreBackend) problem() string {
	switch {
	case b.database == nil:
		return "the Firestore client is nil"
	case b.database.Collection(b.collection) == nil:
		return quote(b.collection) + " is no path of a collection: an odd number of names, separated by slashes"
	}
	return ""
}

// KeepsDeviceKeys implements [DeviceKeeper].
func (b *firestoreBackend) KeepsDeviceKeys() {}

// client identifies backends that share their records.
func (b *firestoreBackend) client() any { return *b }

// The parts of a document. A field's name is a key of the map "fields", so that it cannot clash with another part.
// Parts that a document does not need are left out: each costs a hundredth of a read, and an index.
const (
	docVersion   = "version" // of the format, if it is not the first
	docCreated   = "created_at"
	docSaved     = "saved_at"
	docExpires   = "expires_at"
	docPermanent = "permanent" // if it is
	docFields    = "fields"
	docUpdate    = "update_id"
	docRotated   = "rotated_at" // if it was
	docOrigin    = "origin"     // if it was rotated
	docMark      = "mark"       // that it is taken or has ended, see Mark
	docOwner     = "owner"      // with IndexBy, and by the index of that one field
	docDevice    = "device"     // with IndexBy
	docDeviceKey = "device_key" // with DeviceBound, if it is bound
)

// firestoreName turns a field's name into a valid key of a map, which must not match __.*__, and must have no line
// break, which a path would not preserve. "~" marks a name that is escaped.
func firestoreName(name string) string {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	if strings.HasPrefix(name, "__") || strings.HasPrefix(name, "~") || strings.IndexFunc(name, control) >= 0 {
		return "~" + url.PathEscape(name)
	}
	return name
}

// fieldName undoes firestoreName, and reports whether it has made the key.
func fieldName(key string) (name string, ok bool) {
	name = key
	if escaped, found := strings.CutPrefix(key, "~"); found {
		name, _ = url.PathUnescape(escaped)
	}
	return name, firestoreName(name) == key
}

// firestoreValue is text if possible, so that it is readable in the console.
func firestoreValue(value []byte) any {
	if utf8.Valid(value) {
		return string(value)
	}
	return value
}

// docName turns a key into the name of a document, in which a slash would begin a collection.
var (
	docName = strings.NewReplacer("%", "%25", "/", "%2F")
	docKey  = strings.NewReplacer("%25", "%", "%2F", "/")
)

// doc returns the document of a key.
func (b *firestoreBackend) doc(key string) *firestore.DocumentRef {
	return b.database.Collection(b.collection).Doc(docName.Replace(key))
}

var (
	errCorruptDocument = fmt.Errorf("%w: it is corrupt", ErrNoRecord)
	errLargeDocument   = fmt.Errorf("firestore: %w for a document", ErrTooLarge)
)

// unreadable stands for a value that cannot become a field: it is not text, and no JSON or other usual encoding begins
// like it.
var unreadable = []byte{0xc1}

// storedValue is the encoded value of a field in a document: text or bytes as firestoreValue wrote it, or JSON for what
// was entered in the console.
func storedValue(value any) []byte {
	switch value := value.(type) {
	case string:
		return []byte(value)
	case []byte:
		return append([]byte{}, value...)
	}
	if !isTree(value) {
		return unreadable
	}
	data, err := json.Marshal(value)
	if err != nil { // not a number
		return unreadable
	}
	return data
}

// isTree reports whether a value of a document is one that JSON has as well, or a time. Others are geopoints and
// references.
func isTree(value any) bool {
	switch value := value.(type) {
	case nil, bool, int64, float64, string, []byte, time.Time:
		return true
	case []any:
		return !slices.ContainsFunc(value, func(v any) bool { return !isTree(v) })
	case map[string]any:
		for _, v := range value {
			if !isTree(v) {
				return false
			}
		}
		return true
	}
	return false
}

// decodeFirestore decodes the data of a document into a record, which may have expired.
func decodeFirestore(data map[string]any, updated time.Time) (*Record, error) {
	if _, ok := data[docVersion]; ok {
		return nil, fmt.Errorf("%w: it has a later format", ErrNoRecord)
	}
	r := &Record{Version: updated.Format(time.RFC3339Nano)}
	if text, found := data[docMark].(string); found {
		var ok1, ok2 bool
		r.Mark, ok1 = parseMark(text)
		r.Expires, ok2 = data[docExpires].(time.Time)
		switch {
		case !ok1 || !ok2:
			return nil, errCorruptDocument
		case r.Mark.Ended && data[docFields] == nil:
			return r, nil
		}
	}
	var wrong []string
	check := func(part string, ok bool) {
		if !ok {
			wrong = append(wrong, part)
		}
	}
	var ok bool
	r.Created, ok = data[docCreated].(time.Time)
	check(docCreated, ok)
	r.Saved, ok = data[docSaved].(time.Time)
	check(docSaved, ok)
	r.Expires, ok = data[docExpires].(time.Time)
	check(docExpires, ok)
	fields, ok := data[docFields].(map[string]any)
	check(docFields, ok)
	permanent, found := data[docPermanent]
	r.Permanent, ok = permanent.(bool)
	check(docPermanent, ok || !found)
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%w: %s missing, or not what sessplus writes", ErrNoRecord, strings.Join(wrong, ", "))
	}
	r.Rotated, _ = data[docRotated].(time.Time)
	r.Origin, _ = data[docOrigin].(string)
	r.Owner, _ = data[docOwner].(string)
	r.Device, _ = data[docDevice].(string)
	r.DeviceKey, _ = data[docDeviceKey].(string)
	r.Fields = make([]RawField, 0, len(fields))
	for key, value := range fields {
		name, ok := fieldName(key)
		if !ok {
			continue
		}
		r.Fields = append(r.Fields, RawField{name, storedValue(value)})
	}
	return r, nil
}

func encodeFirestore(r *Record) map[string]any {
	fields := make(map[string]any, len(r.Fields))
	for _, f := range r.Fields {
		fields[firestoreName(f.Name)] = firestoreValue(f.Value)
	}
	doc := map[string]any{docCreated: r.Created, docSaved: r.Saved, docExpires: r.Expires, docFields: fields}
	if r.Permanent {
		doc[docPermanent] = true
	}
	if !r.Rotated.IsZero() {
		doc[docRotated], doc[docOrigin] = r.Rotated, r.Origin
	}
	if r.Owner != "" {
		doc[docOwner] = r.Owner
	}
	if r.Device != "" {
		doc[docDevice] = r.Device
	}
	if r.DeviceKey != "" {
		doc[docDeviceKey] = r.DeviceKey
	}
	return doc
}

// firestoreUpdates lists what the change, if it is one, has made of before, field path by field path.
func firestoreUpdates(c *Change, before, after *Record) []firestore.Update {
	var list []firestore.Update
	add := func(value any, path ...string) {
		list = append(list, firestore.Update{FieldPath: path, Value: value})
	}
	if c == nil {
		c = &Change{}
		if after.Fields == nil && before.Fields != nil {
			add(firestore.Delete, docFields)
			if before.Owner != "" { // or every list would read the remains
				add(firestore.Delete, docOwner)
			}
		}
	}
	if after.Mark != before.Mark && after.Mark != nil {
		add(after.Mark.String(), docMark)
	} else if after.Mark != before.Mark {
		add(firestore.Delete, docMark)
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
	if after.Permanent && !before.Permanent {
		add(true, docPermanent)
	} else if before.Permanent && !after.Permanent {
		add(firestore.Delete, docPermanent)
	}
	if after.Owner != before.Owner {
		add(after.Owner, docOwner)
	}
	if after.DeviceKey != before.DeviceKey {
		add(after.DeviceKey, docDeviceKey)
	}
	return list
}

// firestoreError keeps what may be logged of an error. The text of a status names the document, and may quote it.
func firestoreError(err error) error {
	for _, own := range []error{ErrNoRecord, ErrRecordExists, ErrConflict, ErrTaken, ErrTooLarge} {
		if errors.Is(err, own) {
			return err
		}
	}
	code, text := status.Code(err), status.Convert(err).Message()
	switch {
	case err == nil:
		return nil
	case code == codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("firestore: %w", context.DeadlineExceeded)
	case code == codes.InvalidArgument && (strings.Contains(text, "size") || strings.Contains(text, "longer than")):
		return errLargeDocument
	}
	return fmt.Errorf("firestore answers %s", code)
}

// missing reports whether a read found no document. NotFound without a snapshot means that there is no database.
func missing(snap *firestore.DocumentSnapshot, err error) bool {
	return status.Code(err) == codes.NotFound && snap != nil && !snap.Exists()
}

// read returns the record of a document, also one that has expired or ended, and the document, which is nil if there is
// none.
func (b *firestoreBackend) read(ctx context.Context, doc *firestore.DocumentRef) (*Record, *firestore.DocumentSnapshot, error) {
	snap, err := doc.Get(ctx)
	if missing(snap, err) {
		return nil, nil, ErrNoRecord
	}
	if err != nil {
		return nil, nil, firestoreError(err)
	}
	r, err := decodeFirestore(snap.Data(), snap.UpdateTime)
	return r, snap, err
}

// An untold context hides its deadline from the server, which would spend time watching it: a fiftieth of a read on the
// emulator. The call still ends by the deadline, because the client cancels it.
type untold struct{ context.Context }

func (untold) Deadline() (t time.Time, ok bool) { return t, false }

func (b *firestoreBackend) Load(ctx context.Context, key string) (*Record, error) {
	r, _, err := b.read(untold{ctx}, b.doc(key))
	if err == nil {
		err = r.live(time.Now())
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// A document and a value in it may have so many bytes.
const (
	maxDocument      = 1 << 20
	maxDocumentValue = maxDocument - 89
)

// tooLarge rejects fields that do not fit into one document. Firestore answers these in many ways, some of which look
// like an outage.
func tooLarge(fields []RawField) error {
	total := 0
	for _, f := range fields {
		total += len(f.Name) + len(f.Value)
		if len(f.Value) > maxDocumentValue || total > maxDocument {
			return errLargeDocument
		}
	}
	return nil
}

func (b *firestoreBackend) Create(ctx context.Context, key string, r *Record) error {
	if err := tooLarge(r.Fields); err != nil {
		return err
	}
	ctx = untold{ctx}
	doc := b.doc(key)
	return untilAlone(ctx, func() error {
		_, err := doc.Create(ctx, encodeFirestore(r))
		if status.Code(err) != codes.AlreadyExists {
			return err
		}
		r, snap, err := b.read(ctx, doc)
		switch {
		case err == nil && r.Expires.After(time.Now()):
			return ErrRecordExists
		case err == ErrNoRecord:
			return errNotAlone // another request has removed it since
		case snap == nil:
			return err
		}
		if _, err = doc.Delete(ctx, firestore.LastUpdateTime(snap.UpdateTime)); err != nil {
			return err
		}
		return errNotAlone // what had expired is out of the way
	})
}

// Update writes in one call if the document is still as the caller saw it. Otherwise it reads before it writes, until
// nobody else writes in between. Unlike a transaction, it never locks anything.
//
// The client library retries a write whose reply is lost. A compare-and-set that was applied would then look like
// another request's, and be applied twice; so it leaves its id in the document.
func (b *firestoreBackend) Update(ctx context.Context, key string, c *Change) (result Result, err error) {
	if err := tooLarge(c.Set); err != nil {
		return Result{}, err
	}
	ctx = untold{ctx}
	doc := b.doc(key)
	var id string
	if len(c.Match) > 0 {
		id = rand.Text()
	}
	write := func(before *Record) (wrote bool, err error) {
		after := before.clone()
		if result, err = c.Apply(after); err != nil {
			return false, err
		}
		updates := firestoreUpdates(c, before, after)
		if id != "" && len(updates) > 0 {
			updates = append(updates, firestore.Update{Path: docUpdate, Value: id})
		}
		result.Version, err = writeFirestore(ctx, doc, before, updates)
		return len(updates) > 0, err
	}
	if done, err := asSeen(c.Seen, write); done {
		return result, firestoreError(err)
	}
	err = untilAlone(ctx, func() error {
		r, snap, err := b.read(ctx, doc)
		if err != nil {
			return err
		}
		if id != "" && snap.Data()[docUpdate] == id {
			result.Expires = r.Expires // the rest is as it was written
			return nil
		}
		_, err = write(r)
		return err
	})
	result.Version = "" // what the caller knows of the record is not what it was
	return result, err
}

// writeFirestore updates the document if it is still as it was, and returns the record's new Version.
func writeFirestore(ctx context.Context, doc *firestore.DocumentRef, before *Record, updates []firestore.Update) (version string, err error) {
	if len(updates) == 0 {
		return before.Version, nil
	}
	seen, err := time.Parse(time.RFC3339Nano, before.Version)
	if err != nil {
		return "", err
	}
	answer, err := doc.Update(ctx, updates, firestore.LastUpdateTime(seen))
	if err != nil {
		return "", err
	}
	return answer.UpdateTime.Format(time.RFC3339Nano), nil
}

// asSeen tries to write without a read, to the record as the caller knew it. It reports whether that settles the
// matter: a refusal may only be due to outdated knowledge.
func asSeen(seen *Record, write func(before *Record) (wrote bool, err error)) (done bool, err error) {
	if seen == nil || seen.Version == "" {
		return false, nil
	}
	wrote, err := write(seen)
	if err == nil {
		return wrote, nil
	}
	for _, refusal := range []error{ErrNoRecord, ErrConflict, ErrTaken} {
		if errors.Is(err, refusal) {
			return false, nil
		}
	}
	return !stale(err), err
}

// Unlike Update, End needs no id against lost replies: the Token makes each step idempotent.
func (b *firestoreBackend) End(ctx context.Context, key string, e *Ending) (r *Record, err error) {
	ctx = untold{ctx}
	doc := b.doc(key)
	write := func(before *Record) (wrote bool, err error) {
		r = before.clone()
		refused := e.Apply(r)
		if refused != nil && endedBy(refused) == nil {
			return false, refused
		}
		updates := firestoreUpdates(nil, before, r)
		if r.Version, err = writeFirestore(ctx, doc, before, updates); err != nil {
			return false, err
		}
		return len(updates) > 0, refused
	}
	if done, err := asSeen(e.Seen, write); done {
		return r, firestoreError(err)
	}
	err = untilAlone(ctx, func() error {
		before, _, err := b.read(ctx, doc)
		if err != nil {
			return err
		}
		_, err = write(before)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Owned queries documents by their owner, which Firestore indexes automatically. What cannot be read is skipped.
func (b *firestoreBackend) Owned(ctx context.Context, owner string) ([]KeyedRecord, error) {
	snaps, err := b.database.Collection(b.collection).Where(docOwner, "==", owner).Documents(untold{ctx}).GetAll()
	if err != nil {
		return nil, firestoreError(err)
	}
	list := make([]KeyedRecord, 0, len(snaps))
	for _, snap := range snaps {
		r, err := decodeFirestore(snap.Data(), snap.UpdateTime)
		if err == nil && r.live(time.Now()) == nil {
			list = append(list, KeyedRecord{docKey.Replace(snap.Ref.ID), r})
		}
	}
	return list, nil
}

// errNotAlone asks untilAlone for another try.
var errNotAlone = errors.New("somebody else has written the document")

// stale reports whether a write failed because the document was not as expected.
func stale(err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.Aborted, codes.NotFound:
		return true
	}
	return errors.Is(err, errNotAlone)
}

// untilAlone calls f until its write does not come between those of others, or ctx is done.
func untilAlone(ctx context.Context, f func() error) error {
	for attempt := 0; ; attempt++ {
		err := f()
		if !stale(err) {
			return firestoreError(err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("firestore: others were faster: %w", ctx.Err())
		case <-time.After(mathrand.N(5 * time.Millisecond << min(attempt, 5))):
		}
	}
}
