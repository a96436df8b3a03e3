//go:build !noredis

package sessplus

import (
	"crypto/sha1"
	"encoding/hex"
)

// A redisScript runs in one atomic step. It is sent once to each server, and called by its hash from then on.
//
// Redis does not undo a script that fails midway, for example because its user may not run one of the commands. So a
// script first rehearses what could fail: it reads, and rewrites what is already there. PEXPIREAT comes last, because
// with a time in the past it removes the key, and later commands would create one without an expiry. A full Redis only
// checks the first write of a script, and rejects HSET there, so scripts that make a record larger begin with HSET, and
// others do not.
type redisScript struct{ text, sha any } // as arguments of a command

func newRedisScript(text string) *redisScript {
	sum := sha1.Sum([]byte(text)) // Redis names scripts so; nothing depends on it being hard to invert
	return &redisScript{text, hex.EncodeToString(sum[:])}
}

// redisCreate: KEYS record; ARGV now, expiry, ":record", ":saved", then names and values. It answers "exists" if there
// is a record, or was one a moment ago, and "late" if the record has expired by the clock of Redis for more than a
// second.
var redisCreate = newRedisScript(`
if redis.call('EXISTS', KEYS[1]) == 1 then
  local stored = tonumber(redis.call('HGET', KEYS[1], ':expires') or nil)
  if stored and stored > tonumber(ARGV[1]) then return 'exists' end
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], ':record', ARGV[3], ':expires', ARGV[2], ':saved', ARGV[4], unpack(ARGV, 5, math.min(1004, #ARGV)))
for i = 1005, #ARGV, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
local set = redis.pcall('PEXPIREAT', KEYS[1], ARGV[2])
if type(set) == 'table' and set.err then -- no record without expiry, if it may not be set
  redis.call('DEL', KEYS[1])
  return set
end
if redis.call('EXISTS', KEYS[1]) == 0 and redis.call('TIME')[1] * 1000 > ARGV[2] + 1000 then return 'late' end
return 'created'
`)

// What redisSet and redisUpdate answer is a state, and the expiry of the record. If they have moved that, what
// follows is " @" and the owner as the record has it, if any: others may have changed it since the caller saw it.

// redisLive is how the scripts that change a record begin: unless there is one, which nobody has taken, they return the
// reason. What is still in mark then has lapsed, and goes with the change.
const redisLive = `
local key, now = KEYS[1], tonumber(ARGV[1])
local head = redis.call('HMGET', key, ':expires', ':mark')
local text, mark = head[1], head[2]
local stored = tonumber(text or nil)
if not stored or stored <= now then return 'gone' end
if mark then
  local kind, _, at, rest = string.match(mark, '^(%a) (%S+) (%d+) ?(.*)$')
  if kind == 'e' then return 'ended ' .. rest end
  if kind == 't' and tonumber(at) > now then return 'taken' end
end
`

// redisSet is redisUpdate for the most common change, which only sets a few fields. KEYS record; ARGV now, expiry, then
// names and values.
var redisSet = newRedisScript(redisLive + `
if mark then redis.call('HDEL', key, ':mark') end
local empty = redis.call('HLEN', key) == 3
local moved = empty or tonumber(ARGV[2]) > stored
if not moved then
  redis.call('HSET', key, ':saved', ARGV[1], unpack(ARGV, 3))
else
  local filed = string.match(redis.call('HGET', key, ':record') or '', ' @%S+') or ''
  redis.call('HSET', key, ':expires', text)
  redis.call('PEXPIREAT', key, text)
  redis.call('HSET', key, ':expires', ARGV[2], ':saved', ARGV[1], unpack(ARGV, 3))
  redis.call('PEXPIREAT', key, ARGV[2])
  text = ARGV[2] .. filed
end
return (empty and 'refilled ' or 'saved ') .. text
`)

// redisFew is how many fields a redisSet may set.
const redisFew = 100

// redisUpdate: KEYS record; ARGV now, the longest expiry of an empty record, expiry, the flag of permanence or "", the
// expiry and flag with which an earlier expiry holds or "", "@" and the owner or "", the key of a device or "", the
// number of fields to match, to set and to delete, then their names, the first two with their values. A value to match
// is preceded by "=", "" stands for absent. With anything to set or delete, the first to set is ":saved". See Change
// for the rules.
var redisUpdate = newRedisScript(redisLive + `
local expires, flag, exact, owner, bind = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local i, matches, sets, deletes = 11, tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
for _ = 1, matches do
  local value = redis.call('HGET', key, ARGV[i])
  if (value and '=' .. value or '') ~= ARGV[i + 1] then return 'conflict' end
  i = i + 2
end
local before = redis.call('HLEN', key) - (mark and 4 or 3)
local movable = before == 0 or flag ~= '' or exact ~= '' or expires > stored or deletes > 0
local since, was, rest
if movable or owner ~= '' or bind ~= '' then
  since, was, rest = string.match(redis.call('HGET', key, ':record') or '', '^(%S+ %S+ )(%S+)(.*)$')
  if not since then return 'gone' end
end
if bind ~= '' then
  local bound = string.match(rest, ' !(%S+)')
  if bound and bound ~= bind then return 'conflict' end
  if bound then bind = '' end
end
if mark then redis.call('HDEL', key, ':mark') end
local forced = before == 0 or flag ~= '' or expires > stored or exact ~= '' and exact == text .. ' ' .. was
if movable then
  if sets > 1 then redis.call('HSET', key, ':expires', text) end
  redis.call('PEXPIREAT', key, text)
  if deletes > 0 then redis.call('HSET', key, ':expires', text) end
end
local last = i + 2 * sets - 1
local d, lastDelete = last + 1, last + deletes
while d <= lastDelete do
  redis.call('HDEL', key, unpack(ARGV, d, math.min(d + 999, lastDelete)))
  d = math.min(d + 1000, lastDelete + 1)
end
while i <= last do
  redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, last)))
  i = math.min(i + 1000, last + 1)
end
if flag ~= '' or owner ~= '' or bind ~= '' then
  if bind ~= '' then rest = rest .. ' !' .. bind end
  if owner ~= '' then rest = string.gsub(rest, ' @%S*', '') .. (owner ~= '@' and ' ' .. owner or '') end
  redis.call('HSET', key, ':record', since .. (flag ~= '' and flag or was) .. rest)
end
local after = before + math.max(sets - 1, 0) -- or as good as
if deletes > 0 then after = redis.call('HLEN', key) - 3 end
local moved = nil
if after == 0 then
  if tonumber(ARGV[2]) < stored then moved = ARGV[2] end
elseif forced then
  moved = ARGV[3]
end
if moved then
  redis.call('HSET', key, ':expires', moved)
  redis.call('PEXPIREAT', key, moved)
end
local filed = moved and string.match(rest, ' @%S+') or ''
local state = 'saved '
if after == 0 then state = 'empty ' elseif before == 0 then state = 'refilled ' end
return state .. (moved or text) .. filed
`)

// redisEnd: KEYS record; ARGV now, the step ("take", "release" or "end"), the token or "-", when a take lapses, when an
// end is forgotten, what comes next. After a take it answers the hash. See Ending for the rules.
var redisEnd = newRedisScript(`
local key, now, step, token, next = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[6]
local head = redis.call('HMGET', key, ':expires', ':mark')
local text, mark = head[1], head[2]
local stored = tonumber(text or nil)
if not stored or stored <= now then return 'gone' end
local kind, owner, at, rest = '', '', '0', ''
if mark then kind, owner, at, rest = string.match(mark, '^(%a) (%S+) (%d+) ?(.*)$') end
if not kind then kind, at, rest = '', '0', '' end -- it is corrupt
local mine = owner == token and token ~= '-'
local function rehearse()
  redis.call('PEXPIREAT', key, text)
  redis.call('HSET', key, ':expires', text)
end
local function bury(next)
  rehearse()
  redis.call('DEL', key)
  redis.call('HSET', key, ':expires', ARGV[5], ':mark', 'e - ' .. text .. ' ' .. next)
  redis.call('PEXPIREAT', key, ARGV[5])
end
if step == 'release' then
  if mine then
    if kind == 'e' then rehearse() end
    redis.call('HDEL', key, ':mark')
    if kind == 'e' then
      redis.call('HSET', key, ':expires', at)
      redis.call('PEXPIREAT', key, at)
    end
  end
  return 'done'
elseif kind == 'e' then
  if mine and step == 'end' then return 'done' end
  if step == 'end' and token == '-' then bury(rest) end
  return 'ended ' .. rest
elseif step == 'take' and (mine or kind == '' or tonumber(at) <= now) then
  local hash = redis.call('HGETALL', key)
  hash[#hash + 1], hash[#hash + 2] = ':mark', 't ' .. token .. ' ' .. ARGV[4]
  redis.call('HSET', key, unpack(hash, #hash - 1))
  return hash
elseif step == 'end' and token == '-' then
  bury(next)
  return 'done'
elseif step == 'end' and mine then
  rehearse()
  redis.call('HSET', key, ':mark', 'e ' .. token .. ' ' .. text .. ' ' .. next, ':expires', ARGV[5])
  redis.call('PEXPIREAT', key, ARGV[5])
  return 'done'
end
return 'taken'
`)

var redisSteps = [...]string{StepTake: "take", StepRelease: "release", StepEnd: "end"}
