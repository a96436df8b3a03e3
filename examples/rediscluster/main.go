// Rediscluster is a site with its sessions in a Redis Cluster. Visitors stay logged in while slots move and replicas
// take over. To start it with six servers:
//
//	docker compose -f examples/rediscluster/compose.yaml up
//
// or, with your own redis-server:
//
//	for port in $(seq 7001 7006); do
//		redis-server --port $port --cluster-enabled yes --cluster-node-timeout 2000 --dir $(mktemp -d) --save '' \
//			--daemonize yes
//	done
//	redis-cli --cluster create 127.0.0.1:700{1..6} --cluster-replicas 1 --cluster-yes
//	REDIS_ADDRS=127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003 go run ./examples/rediscluster
//
// Open http://127.0.0.1:8080, log in, and click. In the meantime, move slots, let a replica take over, or kill a
// master:
//
//	redis-cli --cluster rebalance 127.0.0.1:7001 --cluster-weight $(redis-cli -p 7002 cluster myid)=2
//	redis-cli -p 7006 cluster failover
//	redis-cli -p 7001 shutdown nosave
//
// Finally, stop the servers:
//
//	for port in $(seq 7001 7006); do redis-cli -p $port shutdown nosave; done
package main

import (
	"cmp"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	addrs := os.Getenv("REDIS_ADDRS")
	if addrs == "" {
		log.Fatal("REDIS_ADDRS is not set: host:port of some servers of the cluster, separated by commas")
	}
	site, err := newSite(redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                 strings.Split(addrs, ","), // where the client learns of the others
		ContextTimeoutEnabled: true,                      // or calls to a hung server outlive the Timeout
	}))
	if err != nil {
		log.Fatal(err)
	}
	addr := cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080")
	log.Print("http://", addr)
	srv := &http.Server{Addr: addr, Handler: site, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	log.Fatal(srv.ListenAndServe())
}
