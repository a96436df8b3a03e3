// Package ginsessplus adapts the middleware of sessplus to gin.
//
//	engine := gin.Default()
//	engine.Use(ginsessplus.New(mgr))
//	engine.GET("/", func(c *gin.Context) {
//		s := sessplus.Get(c.Request)
//		…
//	})
//
// If all routes of a program have sessions, mgr.Handler(engine) is enough. This middleware is for groups and single
// routes, and for programs in which other middleware comes first.
package ginsessplus

import (
	"bufio"
	"io"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/sessplus/sessplus"
)

// New returns [sessplus.Manager.Handler] as a handler for gin. The handlers after it get the session with
// [sessplus.Get] from c.Request, and write to the writer of mgr, which commits before the headers are sent. If the
// session cannot be loaded, the ErrorHandler answers, and the handlers after it do not run.
//
// Put middleware that answers errors after c.Next inside, so that nothing is saved if it responds with a status of 500
// or more. Put Recovery and loggers outside, as in [gin.Default].
func New(mgr *sessplus.Manager) gin.HandlerFunc {
	return func(c *gin.Context) {
		outer, ran := c.Writer, false
		next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ran = true
			inner := &writer{ResponseWriter: outer, commits: w}
			c.Writer, c.Request = inner, r
			defer func() { c.Writer = outer }()
			c.Next()
			inner.tellStatus()
		})
		mgr.Handler(next).ServeHTTP(outer, c.Request)
		if !ran {
			c.Abort()
		}
	}
}

// A writer is gin's, which holds the status back until the response begins, and lets that begin through the writer of
// the Manager, which is above it.
type writer struct {
	gin.ResponseWriter
	commits http.ResponseWriter
}

// tellStatus commits the session under the status that gin has noted, unless the response has begun.
func (w *writer) tellStatus() {
	if !w.Written() {
		w.commits.WriteHeader(w.Status())
	}
}

func (w *writer) WriteHeaderNow() {
	w.tellStatus()
	w.ResponseWriter.WriteHeaderNow()
}

func (w *writer) Write(b []byte) (int, error) {
	w.WriteHeaderNow()
	return w.commits.Write(b)
}

func (w *writer) WriteString(s string) (int, error) {
	w.WriteHeaderNow()
	return io.WriteString(w.commits, s)
}

func (w *writer) Flush() {
	w.WriteHeaderNow()
	http.NewResponseController(w.commits).Flush()
}

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.commits).Hijack()
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.commits }
