//go:build !noredis

package sessplus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A connectError is why there is no connection. It has no Unwrap, because go-redis would show only what is inside.
type connectError struct {
	text  string
	cause error
}

func (e *connectError) Error() string        { return e.text }
func (e *connectError) Is(target error) bool { return errors.Is(e.cause, target) }

// Clocks that differ by more than a lifetime end sessions at once. That must not look like a logout.
var (
	errSlowClock = errors.New("redis: by its clock the new record has expired already; the clock of this machine is slow")
	errFastClock = fmt.Errorf("%w: by the clock of this machine it has expired, by that of Redis it has not", ErrNoRecord)
)

var (
	errNoReply      = errors.New("redis gave no answer")
	errReplica      = errors.New("redis: the client goes to a replica, which is behind (FailoverOptions.ReplicaOnly)")
	errShardMissing = errors.New("redis: a shard of the Ring is down, and it may be the one that has the record")
	errKeyTaken     = fmt.Errorf("%w: its key holds something else", ErrNoRecord)
)

// redisError reduces an error to what may be logged. A reply of Redis may quote the command with its values, an error
// of go-redis may quote what it could not parse, and one of a hook may contain anything. The command and its script may
// be nil.
func redisError(err error, cmd redis.Cmder, s *redisScript) error {
	var (
		reply       redis.Error
		refused     *connectError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		network     net.Error
	)
	switch {
	case errors.As(err, &reply):
		return redisRefusal(reply.Error(), cmd, s)
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &record):
		return record
	case err == errReplica:
		return err
	case hungUp(err):
		hint := "redis hung up; it may have too many clients"
		if errors.As(err, &network) {
			return fmt.Errorf("%s: %w", hint, network)
		}
		return fmt.Errorf("%s: %w", hint, io.EOF)
	case errors.As(err, &network):
		return network
	}
	for _, known := range redisKnown {
		if errors.Is(err, known) || err.Error() == known.Error() {
			return known
		}
	}
	return errors.New("redis did not answer" + to(redisCommandName(cmd)))
}

// redisKnown are the errors of go-redis and package context that hold no values, and say enough.
var redisKnown = []error{
	context.Canceled, redis.ErrClosed, redis.ErrPoolTimeout, redis.ErrPoolExhausted,
	redis.ErrAutoPipelineQueueFull, redis.ErrAutoPipelineTimeout,
	errors.New("redis: all ring shards are down"), errors.New("redis: cluster has no nodes"),
	errors.New("redis: all sentinels specified in configuration are unreachable"),
}

func to(name string) string {
	if name == "" {
		return ""
	}
	return " to " + name
}

func redisCommandName(cmd redis.Cmder) string {
	if cmd == nil || len(cmd.Args()) == 0 {
		return ""
	}
	name, _ := cmd.Args()[0].(string)
	return strings.ToUpper(name)
}

var (
	redisCode    = regexp.MustCompile(`^[A-Z]{2,20}\b`)
	redisQuoted  = regexp.MustCompile("(?:the|command) ['`]([a-zA-Z|]+)['`]")
	redisLine    = regexp.MustCompile(`user_script:(\d+)`)
	redisCalls   = regexp.MustCompile(`redis\.p?call\('([A-Z]+)'`)
	redisPcall   = regexp.MustCompile(`redis\.pcall\('([A-Z]+)'`)
	redisNoValue = regexp.MustCompile(`(?s),? (with )?args beginning with.*`)

	// redisInScript is what Redis before version 7 puts in front of the error of a command in a script.
	redisInScript = regexp.MustCompile(`^ERR Error running script \(call to \w+\): @user_script: ?\d+: (@user_script: ?\d+: )?-?`)
)

// redisReason is the text of a reply with the code of its reason in front.
func redisReason(text string) string { return redisInScript.ReplaceAllString(text, "") }

// redisCommands are the commands that Redis may refuse: those of sessplus, and those for connecting. Only these names
// are taken from a reply.
var redisCommands = []string{
	"HGETALL", "HMGET", "HGET", "HSET", "HDEL", "HLEN", "EXISTS", "DEL", "PEXPIREAT", "TIME", "EVALSHA", "EVAL",
	"ZADD", "ZREM", "ZRANGE", "ZREMRANGEBYSCORE", "ZSCORE",
	"HELLO", "AUTH", "SELECT", "CLIENT", "CLIENT|SETINFO", "CLIENT|SETNAME", "READONLY", "COMMAND", "CLUSTER", "CLUSTER|SLOTS",
	"ASKING", "PING", "ROLE",
}

// redisRefusal rephrases a reply, because the reply may contain values. It names the command that was refused: the one
// in a script, if the reply tells which.
func redisRefusal(text string, cmd redis.Cmder, s *redisScript) error {
	text = redisNoValue.ReplaceAllString(text, "")
	code := redisCode.FindString(redisReason(text))
	if code == "" {
		code = "an error"
	}
	name := redisCommandName(cmd)
	has := func(part string) bool { return strings.Contains(text, part) }
	if m := redisQuoted.FindStringSubmatch(text); m != nil && slices.Contains(redisCommands, strings.ToUpper(m[1])) {
		name = strings.ToUpper(m[1])
	} else if has("script") {
		name = s.commandsIn(redisLine.FindStringSubmatch(text))
	}
	why := ""
	switch {
	case code == "WRONGTYPE", has("WRONGTYPE "): // also from inside a script
		return errKeyTaken
	case (code == "NOPERM" || has("executing the script") || has("ACL failure")) && (has("key") && !has(" run ")):
		why = "its user has no right to the key, see KeyPrefix"
	case code == "NOPERM", has("executing the script"), has("ACL failure"):
		code, why = "NOPERM", "its user may not run "+name
	case has("nknown command"), has("nknown Redis command"):
		why = "it does not know " + name + ", or under another name"
	case has("DB index"), has("invalid DB"):
		why = "it has no such database, see DB in the options of the client"
	case has("max number of clients"):
		why = "it has as many clients as its maxclients allows"
	case code == "NOAUTH":
		why = "it wants a user to log in, see Username in the options of the client"
	case code == "WRONGPASS", has("invalid password"):
		why = "the user or the password is wrong"
	case has("No such master"):
		why = "Sentinel knows no such master, see MasterName"
	default:
		return errors.New("redis answers " + code + to(name))
	}
	return errors.New("redis answers " + code + ": " + why)
}

// commandsIn names the commands in a line of the script, or without one those whose error it returns by itself. It may
// be nil.
func (s *redisScript) commandsIn(line []string) string {
	if s == nil {
		return "a command in a script"
	}
	text, call := s.text.(string), redisPcall
	if line != nil {
		lines := strings.Split(text, "\n")
		if n, _ := strconv.Atoi(line[1]); 0 < n && n <= len(lines) {
			text, call = lines[n-1], redisCalls
		}
	}
	var names []string
	for _, m := range call.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	if names == nil {
		return "a command in a script"
	}
	return strings.Join(names, " or ")
}
