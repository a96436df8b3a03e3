// Package docs checks the Markdown pages: their links, their Go, and that docs/troubleshooting.md lacks no message.
// What its variables name is what the snippets take for granted, and its imports are those that snippets need not name.
package docs

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/gin-gonic/gin"
	redigo "github.com/gomodule/redigo/redis"
	"github.com/gorilla/sessions"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/adopt"
	"github.com/sessplus/sessplus/ginsessplus"
	"github.com/sessplus/sessplus/inspect"
	"github.com/sessplus/sessplus/otelsessplus"
	"github.com/sessplus/sessplus/promsessplus"
	"github.com/sessplus/sessplus/sessplussql"
	"github.com/sessplus/sessplus/sessplustest"
)

var (
	t       *testing.T
	w       http.ResponseWriter
	r       *http.Request
	ctx     context.Context
	mux     *http.ServeMux
	addr    string
	client  *redis.Client
	mgr     *sessplus.Manager
	s       *sessplus.Session
	configs []sessplus.Config
	handle  string
	pages   http.Handler
	events  inspect.Events
	metrics func(context.Context, sessplus.Event)
	secret  []byte

	hashKey, blockKey []byte
	pool              *redigo.Pool

	user, account    struct{ ID int64 }
	addToCart, visit http.HandlerFunc
)

// What the other imports are for.
var (
	_ = rand.Text
	_ = base64.StdEncoding
	_ = errors.New
	_ = fmt.Sprint
	_ = log.Print
	_ slog.Handler
	_ = httptest.NewRequest
	_ = os.Getenv
	_ time.Duration
	_ = redisstore.New
	_ scs.Store
	_ *firestore.Client
	_ *gin.Engine
	_ sessions.Store
	_ prometheus.Registerer
	_ *adopt.Options
	_ = ginsessplus.New
	_ = otelsessplus.New
	_ = promsessplus.New
	_ = sessplussql.New
	_ = sessplustest.With
)
