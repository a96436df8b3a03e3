package sessplussql

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessplus/sessplus"
)

// A state is what the row of a record holds. As text it is the record's Version: a request that changes the record
// builds on the row that it has read, whatever has become of the Record in the meantime.
type state struct {
	version int64  // a random number, new with each change: it distinguishes the states of all records
	expires int64  // milliseconds
	mark    string // see sessplus.Mark; "" for none
	data    string // the rest

	from  int64  // the version that it was made of
	owner string // the value of the column owner; reads take the Owner from data
}

func (s *state) String() string {
	var b [16 + binary.MaxVarintLen64]byte
	binary.BigEndian.PutUint64(b[:], uint64(s.version))
	binary.BigEndian.PutUint64(b[8:], uint64(s.expires))
	return string(binary.AppendUvarint(b[:16], uint64(len(s.mark)))) + s.mark + s.data
}

// parseState is the inverse of String. It returns nil for any other text.
func parseState(text string) *state {
	if len(text) < 16 {
		return nil
	}
	number := func(s string) int64 { return int64(binary.BigEndian.Uint64([]byte(s))) }
	s := &state{version: number(text[:8]), expires: number(text[8:16])}
	d := decoder{text: text[16:]}
	if s.mark = d.next(); d.failed {
		return nil
	}
	s.data = d.text
	return s
}

// same reports whether both are one record, whatever their versions.
func (s *state) same(o *state) bool {
	return s.expires == o.expires && s.mark == o.mark && s.data == o.data
}

// The column data holds, after a byte for the format: flags, the times Created and Saved, and for a record that was
// rotated Rotated and Origin, for one with an Owner or a Device both, for one that is bound the DeviceKey; then for
// each field its name, one more than the length of its value, and the value. A length of zero stands for a field that
// has a row of its own.
const format = 1

const (
	flagPermanent = 1 << iota
	flagRotated
	flagOwned
	flagBound
)

var errCorrupt = fmt.Errorf("%w: it is corrupt", sessplus.ErrNoRecord)

// apart is the value of a field that has a row of its own, as long as that was not read.
var apart = []byte("apart")

func isApart(value []byte) bool { return len(value) > 0 && &value[0] == &apart[0] }

// apartOf returns the names of the fields that have rows of their own.
func apartOf(r *sessplus.Record) (names []string) {
	for _, f := range r.Fields {
		if isApart(f.Value) {
			names = append(names, f.Name)
		}
	}
	return names
}

// record decodes the state. It leaves Version to those who give the record away.
func (s *state) record() (*sessplus.Record, error) {
	r := &sessplus.Record{Expires: time.UnixMilli(s.expires)}
	if s.mark != "" {
		if r.Mark = parseMark(s.mark); r.Mark == nil {
			return nil, errCorrupt
		}
	}
	if s.data == "" {
		return nil, errCorrupt
	}
	if s.data[0] != format {
		return nil, fmt.Errorf("%w: it has a later format", sessplus.ErrNoRecord)
	}
	d := decoder{text: s.data[1:]}
	flags := d.number()
	r.Permanent = flags&flagPermanent != 0
	r.Created, r.Saved = d.time(), d.time()
	if flags&flagRotated != 0 {
		r.Rotated, r.Origin = d.time(), d.next()
	}
	if flags&flagOwned != 0 {
		r.Owner, r.Device = d.next(), d.next()
	}
	if flags&flagBound != 0 {
		r.DeviceKey = d.next()
	}
	r.Fields = make([]sessplus.RawField, 0, 8)
	values := []byte(d.text) // which all fields share
	for d.text != "" && !d.failed {
		f := sessplus.RawField{Name: d.next()}
		if n := d.number(); n > 0 {
			value := values[len(values)-len(d.text):]
			n = uint64(len(d.take(n - 1)))
			f.Value = value[:n:n]
		} else {
			f.Value = apart
		}
		r.Fields = append(r.Fields, f)
	}
	if d.failed {
		return nil, errCorrupt
	}
	return r, nil
}

// A decoder reads text from its beginning.
type decoder struct {
	text   string
	failed bool
}

func (d *decoder) number() uint64 {
	for i := range min(len(d.text), binary.MaxVarintLen64) {
		if d.text[i] < 0x80 {
			n, _ := binary.Uvarint([]byte(d.text[:i+1]))
			d.text = d.text[i+1:]
			return n
		}
	}
	d.failed, d.text = true, ""
	return 0
}

func (d *decoder) take(n uint64) string {
	if n > uint64(len(d.text)) {
		d.failed, d.text = true, ""
		return ""
	}
	part := d.text[:n]
	d.text = d.text[n:]
	return part
}

func (d *decoder) next() string { return d.take(d.number()) }

func (d *decoder) time() time.Time { return time.UnixMilli(int64(d.number())) }

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// listedUnder is the owner that Owned finds a record by, for the column owner: "" once it has ended.
func listedUnder(r *sessplus.Record) string {
	if r.Mark != nil && r.Mark.Ended {
		return ""
	}
	return r.Owner
}

// A difference is what a change does to the rows that fields have of their own.
type difference struct {
	put  []sessplus.RawField
	drop []string
	all  bool // drop has all of them
}

// The fields of a record may take inlineBytes of its row. When they take more, the largest get rows of their own, but
// for those with a value of at most smallBytes, for which a row costs more than it saves.
const (
	inlineBytes = 2 << 10
	smallBytes  = 128
)

// encode returns the row of a new record.
func encode(r *sessplus.Record) (*state, difference) { return encodeAfter(r, nil) }

// encodeAfter returns the row of a record, and what must be done to the other rows, if the fields in was have them.
func encodeAfter(r *sessplus.Record, was []string) (*state, difference) {
	s := &state{version: rand.Int64(), expires: r.Expires.UnixMilli()}
	if r.Mark != nil {
		s.mark = r.Mark.String()
	}
	s.owner = listedUnder(r)
	inline := 0
	for _, f := range r.Fields {
		if inline += len(f.Name); !isApart(f.Value) {
			inline += len(f.Value)
		}
	}
	size := 64 + len(r.Origin) + len(r.Owner) + len(r.Device) + len(r.DeviceKey) + 4*len(r.Fields) + inline
	var out []int // the fields that are to have rows of their own
	if inline > inlineBytes {
		var large []int
		for i, f := range r.Fields {
			if !isApart(f.Value) && len(f.Value) > smallBytes {
				large = append(large, i)
			}
		}
		slices.SortStableFunc(large, func(a, b int) int { return len(r.Fields[b].Value) - len(r.Fields[a].Value) })
		for _, i := range large {
			if inline <= inlineBytes {
				break
			}
			inline -= len(r.Fields[i].Value)
			out = append(out, i)
		}
		slices.Sort(out)
	}
	var flags uint64
	if r.Permanent {
		flags |= flagPermanent
	}
	if !r.Rotated.IsZero() {
		flags |= flagRotated
	}
	if r.Owner != "" || r.Device != "" {
		flags |= flagOwned
	}
	if r.DeviceKey != "" {
		flags |= flagBound
	}
	b := append(make([]byte, 0, size), format)
	b = binary.AppendUvarint(b, flags)
	b = binary.AppendUvarint(b, uint64(r.Created.UnixMilli()))
	b = binary.AppendUvarint(b, uint64(r.Saved.UnixMilli()))
	if flags&flagRotated != 0 {
		b = binary.AppendUvarint(b, uint64(r.Rotated.UnixMilli()))
		b = appendText(b, r.Origin)
	}
	if flags&flagOwned != 0 {
		b = appendText(appendText(b, r.Owner), r.Device)
	}
	if flags&flagBound != 0 {
		b = appendText(b, r.DeviceKey)
	}
	var diff difference
	keep := make(map[string]bool, len(was))
	for i, f := range r.Fields {
		b = appendText(b, f.Name)
		_, leaves := slices.BinarySearch(out, i)
		switch {
		case leaves:
			diff.put = append(diff.put, f)
			fallthrough
		case isApart(f.Value):
			keep[f.Name] = true
			b = append(b, 0)
		default:
			b = binary.AppendUvarint(b, uint64(len(f.Value))+1)
			b = append(b, f.Value...)
		}
	}
	for _, name := range was {
		if !keep[name] {
			diff.drop = append(diff.drop, name)
		}
	}
	diff.all = len(diff.drop) > 0 && len(keep) == 0
	s.data = string(b)
	return s, diff
}

// parseMark is the inverse of [sessplus.Mark.String]. It returns nil for any other text.
func parseMark(text string) *sessplus.Mark {
	part := strings.SplitN(text, " ", 4)
	if len(part) < 3 || part[0] != "t" && part[0] != "e" {
		return nil
	}
	at, err := strconv.ParseInt(part[2], 10, 64)
	if err != nil {
		return nil
	}
	m := &sessplus.Mark{Token: part[1], Ended: part[0] == "e", At: time.UnixMilli(at)}
	if m.Token == "-" {
		m.Token = ""
	}
	if len(part) == 4 {
		m.Next = part[3]
	}
	return m
}
