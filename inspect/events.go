package inspect

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/inspection"
)

// Events keeps the last events of a manager for the page. The zero value is ready to use. It must not be copied after
// its first use, and is safe for concurrent use.
type Events struct {
	mu    sync.Mutex    // guards what follows
	list  []event       // the last maxEvents
	asked int           // requests so far
	more  chan struct{} // closed when there is another event; nil while nobody waits for one
}

// maxEvents is how many are kept, and how many rows the page has.
const maxEvents = 100

// An event is a row of the page.
type event struct {
	sessplus.Event
	No     int // of the event, from 1
	Time   time.Time
	Number int // of its request, from 1; 0 outside a request
	Method string
	Path   string

	request *http.Request
}

// Odd distinguishes the rows of one request from those of the next.
func (e event) Odd() bool { return e.Number%2 == 1 }

// own marks the requests of the page that only look: their loads are not listed.
type own struct{}

// OnEvent keeps the event. It must be the [sessplus.Options.OnEvent] of the manager, or be called by it.
func (l *Events) OnEvent(ctx context.Context, e sessplus.Event) {
	if ctx.Value(own{}) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	row := event{Event: e, No: 1, Time: time.Now()}
	if n := len(l.list); n > 0 {
		row.No = l.list[n-1].No + 1
	}
	if r, _ := ctx.Value(inspection.RequestKey{}).(*http.Request); r != nil {
		row.request, row.Method, row.Path = r, r.Method, cmp.Or(pathOf(r.RequestURI), r.URL.Path)
		if i := slices.IndexFunc(l.list, func(o event) bool { return o.request == r }); i >= 0 {
			row.Number = l.list[i].Number
		} else {
			l.asked++
			row.Number = l.asked
		}
	}
	if len(l.list) == maxEvents {
		l.list = slices.Delete(l.list, 0, 1)
	}
	l.list = append(l.list, row)
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// pathOf leaves out the query, which may hold secrets.
func pathOf(uri string) string {
	path, _, _ := strings.Cut(uri, "?")
	return path
}

// since returns the events after that number, and what is closed when there is another one. A number of before a
// restart is as good as none.
func (l *Events) since(no int) (list []event, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.list); n == 0 || no > l.list[n-1].No {
		no = 0
	}
	for _, e := range l.list {
		if e.No > no {
			list = append(list, e)
		}
	}
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return list, l.more
}

// streamTime is how long a stream of events lasts before the page asks for the next one: shorter than what servers
// usually wait for at a shutdown, and than their WriteTimeout.
const streamTime = 8 * time.Second

// serve sends events as they come, each as the row of the table that it is: text/event-stream of the HTML standard.
func (l *Events) serve(w http.ResponseWriter, r *http.Request) {
	if l == nil {
		http.Error(w, "The program keeps no events.", http.StatusNotFound)
		return
	}
	last, err := strconv.Atoi(cmp.Or(r.Header.Get("Last-Event-Id"), r.URL.Query().Get("events")))
	if err != nil {
		http.Error(w, "There is no such event.", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "retry: 200\n\n")
	end := time.NewTimer(streamTime)
	defer end.Stop()
	flush := http.NewResponseController(w).Flush
	for {
		list, more := l.since(last)
		for _, e := range list {
			var row bytes.Buffer
			if templates.ExecuteTemplate(&row, "event", e) != nil {
				return
			}
			last = e.No
			fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.No, strings.Join(strings.Fields(row.String()), " "))
		}
		if flush() != nil {
			return
		}
		select {
		case <-more:
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		}
	}
}
