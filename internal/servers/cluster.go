package servers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A RedisCluster is a Redis Cluster of three masters, each with a replica that takes over about two seconds after its
// master has died.
type RedisCluster struct {
	Masters, Replicas []*RedisServer
}

// NewRedisCluster starts a cluster, which ends with the test.
func NewRedisCluster(t testing.TB) *RedisCluster {
	t.Helper()
	c := &RedisCluster{}
	bus := make(map[*RedisServer]int)
	for i := range 6 {
		port := FreePort(t)
		s := NewRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", strconv.Itoa(port),
			"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
		bus[s] = port
		if i < 3 {
			c.Masters = append(c.Masters, s)
		} else {
			c.Replicas = append(c.Replicas, s)
		}
	}
	first := c.Masters[0]
	for i, s := range c.all() { // equal epochs would delay the elections of replicas
		c.do(t, s, "cluster", "set-config-epoch", i+1)
	}
	for i, s := range c.all() {
		if i > 0 {
			host, port, _ := net.SplitHostPort(s.Addr)
			c.do(t, first, "cluster", "meet", host, port, bus[s])
		}
	}
	for i, s := range c.Masters {
		c.do(t, s, "cluster", "addslotsrange", i*16384/3, (i+1)*16384/3-1)
	}
	WaitFor(t, "the nodes know each other", 20*time.Second, func() bool {
		for _, s := range c.all() {
			if strings.Count(c.do(t, s, "cluster", "nodes"), "connected") < 6 {
				return false
			}
		}
		return true
	})
	for i, s := range c.Replicas {
		id := c.ID(t, c.Masters[i])
		WaitFor(t, "a replica follows", 20*time.Second, func() bool {
			client := s.Client()
			defer client.Close()
			return client.ClusterReplicate(context.Background(), id).Err() == nil
		})
	}
	WaitFor(t, "the cluster is complete", 20*time.Second, func() bool {
		for _, s := range c.all() {
			if !strings.Contains(c.do(t, s, "cluster", "info"), "cluster_state:ok") {
				return false
			}
		}
		for _, s := range c.Replicas {
			if !strings.Contains(c.do(t, s, "info", "replication"), "master_link_status:up") {
				return false
			}
		}
		return true
	})
	return c
}

func (c *RedisCluster) all() []*RedisServer {
	return append(append([]*RedisServer(nil), c.Masters...), c.Replicas...)
}

// do runs a command on one node.
func (c *RedisCluster) do(t testing.TB, s *RedisServer, args ...any) string {
	t.Helper()
	client := s.Client()
	defer client.Close()
	v, err := client.Do(context.Background(), args...).Result()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return fmt.Sprint(v)
}

// ID returns the node id of a server.
func (c *RedisCluster) ID(t testing.TB, s *RedisServer) string {
	t.Helper()
	return c.do(t, s, "cluster", "myid")
}

// Client returns a client of the cluster that looks for a new master as soon as one fails.
func (c *RedisCluster) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	var addrs []string
	for _, s := range c.all() {
		addrs = append(addrs, s.Addr)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ContextTimeoutEnabled: true})
	t.Cleanup(func() { client.Close() })
	return client
}

// MoveSlot moves a slot with its keys from one master to another, as redis-cli --cluster reshard does, while between
// lets the caller make requests halfway.
func (c *RedisCluster) MoveSlot(t testing.TB, slot int, from, to *RedisServer, between func()) {
	t.Helper()
	c.do(t, to, "cluster", "setslot", slot, "importing", c.ID(t, from))
	c.do(t, from, "cluster", "setslot", slot, "migrating", c.ID(t, to))
	between()
	host, port, _ := net.SplitHostPort(to.Addr)
	client := from.Client()
	defer client.Close()
	for {
		keys, err := client.ClusterGetKeysInSlot(context.Background(), slot, 1).Result()
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		c.do(t, from, "migrate", host, port, keys[0], 0, 5000)
		between()
	}
	c.do(t, to, "cluster", "setslot", slot, "node", c.ID(t, to))
	c.do(t, from, "cluster", "setslot", slot, "node", c.ID(t, to))
}

// A SentinelSet is a master with a replica, and three sentinels that agree on which is the master.
type SentinelSet struct {
	Master, Replica *RedisServer
	Addrs           []string // of the sentinels
}

// SentinelMaster is the name of the master in a SentinelSet.
const SentinelMaster = "sessions"

// NewSentinelSet starts a set, which ends with the test.
func NewSentinelSet(t testing.TB) *SentinelSet {
	t.Helper()
	s := &SentinelSet{Master: NewRedis(t, "--repl-diskless-sync-delay", "0")}
	host, port, _ := net.SplitHostPort(s.Master.Addr)
	s.Replica = NewRedis(t, "--replicaof", host+" "+port)
	WaitFor(t, "the replica follows", 20*time.Second, func() bool {
		c := s.Replica.Client()
		defer c.Close()
		return strings.Contains(c.Info(context.Background(), "replication").Val(), "master_link_status:up")
	})
	for range 3 {
		addr := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
		_, own, _ := net.SplitHostPort(addr)
		config := filepath.Join(t.TempDir(), "sentinel.conf")
		text := fmt.Sprintf("bind 127.0.0.1\nport %s\nsentinel monitor %s %s %s 2\nsentinel down-after-milliseconds %[2]s 1000\n"+
			"sentinel failover-timeout %[2]s 3000\n", own, SentinelMaster, host, port)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := Start("redis-server", config, "--sentinel")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		s.Addrs = append(s.Addrs, addr)
	}
	for _, addr := range s.Addrs {
		c := redis.NewSentinelClient(&redis.Options{Addr: addr})
		WaitFor(t, "the sentinels know each other", 20*time.Second, func() bool {
			m, err := c.Master(context.Background(), SentinelMaster).Result()
			return err == nil && m["num-other-sentinels"] == "2" && m["num-slaves"] == "1"
		})
		c.Close()
	}
	return s
}

// Client returns a client that follows the master.
func (s *SentinelSet) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: SentinelMaster, SentinelAddrs: s.Addrs})
	t.Cleanup(func() { c.Close() })
	return c
}
