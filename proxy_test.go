package sessplus_test

import (
	"maps"
	"net"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A proxy stands before a server, and can be told to break.
type proxy struct {
	l      net.Listener
	target string

	mu    sync.Mutex
	cond  *sync.Cond
	mode  proxyMode
	conns map[net.Conn]bool
	lost  map[net.Conn]bool      // those that pass nothing on any more
	onUp  func([]byte) proxyMode // called with what clients send, tells the mode from then on; may be nil
}

type proxyMode int

const (
	proxyServe  proxyMode = iota
	proxyHang             // accepts, and passes nothing on
	proxyMute             // passes requests on, and holds the answers
	proxyRefuse           // closes new connections at once
)

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: target, conns: make(map[net.Conn]bool), lost: make(map[net.Conn]bool)}
	p.cond = sync.NewCond(&p.mu)
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.set(proxyServe)
	})
	go func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(down)
		}
	}()
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) set(m proxyMode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	p.cond.Broadcast()
}

// watch sees what clients send from now on.
func (p *proxy) watch(f func([]byte) proxyMode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onUp = f
}

// cut closes all connections; what is held of an answer is lost.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
	p.cond.Broadcast()
}

// lose passes nothing more on between those that are connected, and does not tell them.
func (p *proxy) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.lost, p.conns)
}

func (p *proxy) serve(down net.Conn) {
	p.mu.Lock()
	if p.mode == proxyRefuse {
		p.mu.Unlock()
		down.Close()
		return
	}
	p.conns[down] = true
	p.mu.Unlock()
	up, err := net.Dial("tcp", p.target)
	if err != nil {
		down.Close()
		return
	}
	defer up.Close()
	go func() {
		p.pump(up, down, down, true)
		up.Close()
	}()
	p.pump(down, up, down, false)
	down.Close()
}

// pump copies as long as the mode lets it; pair is what tells whether the connection was cut.
func (p *proxy) pump(dst, src, pair net.Conn, isUp bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		if isUp && p.onUp != nil {
			p.mode = p.onUp(buf[:n])
		}
		for p.conns[pair] && (p.lost[pair] || p.mode == proxyHang || p.mode == proxyMute && !isUp) {
			p.cond.Wait()
		}
		alive := p.conns[pair]
		p.mu.Unlock()
		if !alive {
			return
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A faulty backend has a proxy before its server, and a way past it.
type faulty struct {
	backend, direct sessplus.Backend
	proxy           *proxy
}

// behindProxy runs the test on each backend that has a network.
func behindProxy(t *testing.T, test func(t *testing.T, f faulty)) {
	t.Run("redis", func(t *testing.T) {
		f, _ := redisBehindProxy(t)
		test(t, f)
	})
	t.Run("autopipeline", func(t *testing.T) {
		slow(t)
		f, _ := redisBehindProxy(t)
		through := redis.NewClient(&redis.Options{Addr: f.proxy.addr()})
		t.Cleanup(func() { through.Close() })
		f.backend = sessplus.Redis(autoPipeline(t, through))
		test(t, f)
	})
	t.Run("firestore", func(t *testing.T) {
		addr := servers.FirestoreAddr(t)
		p := newProxy(t, addr)
		project := servers.NewProject()
		test(t, faulty{
			sessplus.Firestore(servers.FirestoreAt(t, p.addr(), project), "sessions"),
			sessplus.Firestore(servers.FirestoreAt(t, addr, project), "sessions"), p,
		})
	})
}

func redisBehindProxy(t *testing.T) (f faulty, direct *redis.Client) {
	t.Helper()
	s := servers.NewRedis(t)
	p := newProxy(t, s.Addr)
	through := redis.NewClient(&redis.Options{Addr: p.addr()})
	direct = s.Client()
	t.Cleanup(func() { through.Close(); direct.Close() })
	return faulty{sessplus.Redis(through), sessplus.Redis(direct), p}, direct
}
