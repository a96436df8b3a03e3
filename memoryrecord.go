package sessplus

import (
	"encoding/binary"
	"time"
)

// A memoryRecord is a record with its key. Most are one block of bytes, which is all that a session takes beside its
// place in the index, and which a change replaces. Of a large record, a change replaces only what it sets.
type memoryRecord struct {
	block string  // the key, and after it the record, unless it is large
	large *Record // or nil
}

// memoryBlock is how many bytes of fields a record may have to become a block, and how long a change may make one. A
// record that was large once, or that was taken or ended, remains large.
const memoryBlock = 1 << 10

// newMemoryRecord copies r.
func newMemoryRecord(key string, r *Record) memoryRecord {
	if sizeOf(r.Fields) > memoryBlock {
		return memoryRecord{string(appendText(nil, key)), r.clone()}
	}
	return memoryRecord{block: newBlock(key, r)}
}

// outgrows reports whether the record is too large for a block, or may be so after a change that sets the fields.
func (r *memoryRecord) outgrows(set []RawField) bool {
	return r.large != nil || len(r.block)+sizeOf(set) > memoryBlock
}

// enlarge makes the record a large one, and returns it to be changed.
func (r *memoryRecord) enlarge() *Record {
	if r.large == nil {
		r.large = r.copy()
	}
	return r.large
}

// copy returns a copy of the record.
func (r *memoryRecord) copy() *Record {
	if r.large != nil {
		return r.large.clone()
	}
	c := newRecord(fewFields)
	*c = readBlock(r.block, c.Fields)
	return c
}

func (r *memoryRecord) key() string {
	b := memoryReader{block: bytesOf(r.block)}
	return stringOf(b.text())
}

func (r *memoryRecord) expires() time.Time {
	if r.large != nil {
		return r.large.Expires
	}
	b := memoryReader{block: bytesOf(r.block)}
	b.text() // the key
	return b.time()
}

func sizeOf(fields []RawField) (n int) {
	for _, f := range fields {
		n += len(f.Name) + len(f.Value)
	}
	return n
}

// newBlock encodes a record that has no Mark, without what only other backends use:
//
//	key | Expires, Created, Saved, Rotated | Permanent | Origin, Owner, Device, DeviceKey | of each field: name, value
//
// A time is a uvarint of the milliseconds since the zero time; a text is as in a secure cookie, see contentText.
func newBlock(key string, r *Record) string {
	b := appendText(make([]byte, 0, 2*memoryBlock), key) // on the stack
	for _, t := range [...]time.Time{r.Expires, r.Created, r.Saved, r.Rotated} {
		b = binary.AppendUvarint(b, uint64(t.UnixMilli()-zeroMilli))
	}
	if b = append(b, 0); r.Permanent {
		b[len(b)-1] = 1
	}
	for _, text := range [...]string{r.Origin, r.Owner, r.Device, r.DeviceKey} {
		b = appendText(b, text)
	}
	for _, f := range r.Fields {
		b = appendText(appendText(b, f.Name), stringOf(f.Value))
	}
	return string(b)
}

// readBlock is the inverse of newBlock. It appends the fields to room. All texts are those in the block, which is never
// changed.
func readBlock(block string, room []RawField) (r Record) {
	b := memoryReader{block: bytesOf(block)}
	b.text() // the key
	r.Expires, r.Created, r.Saved, r.Rotated = b.time(), b.time(), b.time(), b.time()
	r.Permanent = b.block[b.at] == 1
	b.at++
	for _, text := range [...]*string{&r.Origin, &r.Owner, &r.Device, &r.DeviceKey} {
		*text = stringOf(b.text())
	}
	for r.Fields = room; b.at < len(b.block); {
		r.Fields = append(r.Fields, RawField{stringOf(b.text()), b.text()})
	}
	return r
}

var zeroMilli = time.Time{}.UnixMilli()

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// A memoryReader takes a block apart.
type memoryReader struct {
	block []byte
	at    int
}

func (b *memoryReader) text() (text []byte) {
	text, b.at, _ = contentText(b.block, b.at)
	return text
}

func (b *memoryReader) time() time.Time {
	milli, size := binary.Uvarint(b.block[b.at:])
	b.at += size
	return time.UnixMilli(int64(milli) + zeroMilli)
}
