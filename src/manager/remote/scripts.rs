//! The scripts. Each begins with its flags: `allow-oom` where it gives something back or takes a place in a queue of waiters, which has to go
//! on when the server is full.
//!
//! Numbers that come from `TIME` in microseconds are below 2^53, so a Lua number holds them; they are written with `%.0f`.

use crate::server::script::Script;

/// KEYS objs, object. ARGV: member, about, life in ms or 0, how to fill it, with what. Tells what is there if it is another thing.
pub(super) static OPEN: Script = Script::new(
    "open",
    "#!lua flags=
local about = redis.call('HGET', KEYS[1], ARGV[1])
if about and about ~= ARGV[2] then return about end
if not about then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
if ARGV[4] ~= '' and redis.call('EXISTS', KEYS[2]) == 0 then
  if ARGV[4] == 'field' then
    redis.call('HSET', KEYS[2], '', ARGV[5])
  elseif ARGV[4] == 'lock' then
    redis.call('HSET', KEYS[2], 'f', '0')
  else
    redis.call('SET', KEYS[2], ARGV[5])
  end
end
if ARGV[3] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return false",
);

/// KEYS objs, all of the object. ARGV: member.
pub(super) static DELETE: Script = Script::new(
    "delete",
    "#!lua flags=allow-oom
redis.call('UNLINK', unpack(KEYS, 2))
return redis.call('HDEL', KEYS[1], ARGV[1])",
);

/// KEYS hash. ARGV: field, value. Tells the old value.
pub(super) static PUT: Script = Script::new(
    "put",
    "#!lua flags=
local old = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return old",
);

/// KEYS hash. ARGV: field, value. Tells the value that was there, or nil.
pub(super) static PUT_NEW: Script = Script::new(
    "put new",
    "#!lua flags=
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then return false end
return redis.call('HGET', KEYS[1], ARGV[1])",
);

/// KEYS hash. ARGV: field.
pub(super) static TAKE: Script = Script::new(
    "take",
    "#!lua flags=allow-oom
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old then redis.call('HDEL', KEYS[1], ARGV[1]) end
return old",
);

/// KEYS hash.
pub(super) static TAKE_ANY: Script = Script::new(
    "take any",
    "#!lua flags=allow-oom
local pair = redis.call('HRANDFIELD', KEYS[1], 1, 'WITHVALUES')
if not pair[1] then return false end
redis.call('HDEL', KEYS[1], pair[1])
return pair",
);

/// KEYS hash. ARGV: field, whether it was there, its old value, whether it is to stay, its new value. 1 if done; else what is there, in an array.
pub(super) static SWAP: Script = Script::new(
    "swap",
    "#!lua flags=
local old = redis.call('HGET', KEYS[1], ARGV[1])
if (old and 1 or 0) ~= tonumber(ARGV[2]) or (old and old ~= ARGV[3]) then
  return {old}
end
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[5])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1",
);

/// KEYS list, whether somebody waits, its tokens. ARGV: command, items. No call takes more at once than a script can.
pub(super) static LIST_PUSH: Script = Script::new(
    "list push",
    "#!lua flags=
for i = 2, #ARGV, 1000 do
  redis.call(ARGV[1], KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
if redis.call('EXISTS', KEYS[2]) == 1 and redis.call('LLEN', KEYS[3]) == 0 then
  redis.call('RPUSH', KEYS[3], '')
  redis.call('PEXPIRE', KEYS[3], 5000)
end",
);

/// KEYS list, whether somebody waits, its tokens. ARGV: command, for how many ms to believe that the caller waits. Tells the item, or nil.
pub(super) static LIST_AWAIT: Script = Script::new(
    "list pop",
    "#!lua flags=allow-oom
local item = redis.call(ARGV[1], KEYS[1])
if not item then
  redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
elseif redis.call('EXISTS', KEYS[1], KEYS[2]) == 2 and redis.call('LLEN', KEYS[3]) == 0 then
  redis.call('RPUSH', KEYS[3], '')
  redis.call('PEXPIRE', KEYS[3], 5000)
end
return item",
);

/// KEYS list. ARGV: index, item. Tells the old item.
pub(super) static LIST_SET: Script = Script::new(
    "list set",
    "#!lua flags=
local old = redis.call('LINDEX', KEYS[1], ARGV[1])
if old then redis.call('LSET', KEYS[1], ARGV[1], ARGV[2]) end
return old",
);

/// KEYS list. ARGV: index, old item, new item. 1 if done; else what is there, in an array.
pub(super) static LIST_SWAP: Script = Script::new(
    "list swap",
    "#!lua flags=
local old = redis.call('LINDEX', KEYS[1], ARGV[1])
if old ~= ARGV[2] then return {old} end
redis.call('LSET', KEYS[1], ARGV[1], ARGV[3])
return 1",
);

/// KEYS list. ARGV: index, item, a mark that is no item. The item there is marked, as only by its bytes a place in the middle can be named.
pub(super) static LIST_INSERT: Script = Script::new(
    "list insert",
    "#!lua flags=
local len, index = redis.call('LLEN', KEYS[1]), tonumber(ARGV[1])
if index > len then return 0 end
if index == len then redis.call('RPUSH', KEYS[1], ARGV[2]) return 1 end
local there = redis.call('LINDEX', KEYS[1], ARGV[1])
redis.call('LSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('LINSERT', KEYS[1], 'BEFORE', ARGV[3], ARGV[2])
redis.call('LSET', KEYS[1], index + 1, there)
return 1",
);

/// KEYS list. ARGV: index, a mark that is no item.
pub(super) static LIST_REMOVE: Script = Script::new(
    "list remove",
    "#!lua flags=allow-oom
local there = redis.call('LINDEX', KEYS[1], ARGV[1])
if there then
  redis.call('LSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('LREM', KEYS[1], 1, ARGV[2])
end
return there",
);

/// KEYS string. ARGV: offset, bytes.
pub(super) static ARRAY_WRITE: Script = Script::new(
    "array write",
    "#!lua flags=
if ARGV[1] + #ARGV[2] > redis.call('STRLEN', KEYS[1]) then return 0 end
redis.call('SETRANGE', KEYS[1], ARGV[1], ARGV[2])
return 1",
);

/// KEYS string. ARGV: offset, old bytes, new bytes. 1 if done; else what is there, in an array.
pub(super) static ARRAY_SWAP: Script = Script::new(
    "array swap",
    "#!lua flags=
local old = redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[1] + #ARGV[2] - 1)
if old ~= ARGV[2] then return {old} end
redis.call('SETRANGE', KEYS[1], ARGV[1], ARGV[3])
return 1",
);

/// KEYS lock, then those of the commands. ARGV: fence; then for each command its name, the number of its key, the number of its other arguments,
/// and these. Nothing is done unless the lock is held with that fence.
pub(super) static GUARDED: &str = "#!lua flags=
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local h = redis.call('HMGET', KEYS[1], 'f', 'd')
if h[1] ~= ARGV[1] or not h[2] or tonumber(h[2]) <= now then return 0 end
local at = 2
while at <= #ARGV do
  local last = at + 2 + ARGV[at + 2]
  redis.call(ARGV[at], KEYS[tonumber(ARGV[at + 1])], unpack(ARGV, at + 3, last))
  at = last + 1
end
return 1";

/// KEYS lock. ARGV: owner, lease in ms. {1, fence, whether its last holder died} or {0, ms left}; nil if there is no lock.
///
/// The fence is greater than any before, even if the server forgot the last one: it is its time in microseconds.
pub(super) static ACQUIRE: Script = Script::new(
    "acquire",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local now = math.floor(us / 1000)
local h = redis.call('HMGET', KEYS[1], 'o', 'd', 'f', 'a')
local died = h[4] or '0'
local fence = h[3]
if not fence then return false end
if h[1] ~= ARGV[1] then
  if h[1] then
    local left = tonumber(h[2]) - now
    if left > 0 then return {0, left} end
    died = '1'
  end
  fence = string.format('%.0f', math.max(tonumber(fence) + 1, us))
end
redis.call('HSET', KEYS[1], 'o', ARGV[1], 'd', string.format('%.0f', now + ARGV[2]), 'f', fence, 'a', died)
return {1, fence, died}",
);

/// KEYS lock, its tokens. ARGV: owner, whether what its last holder left is right again.
pub(super) static RELEASE: Script = Script::new(
    "release",
    "#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'o', 'd')
if ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'a', '0') end
if redis.call('LLEN', KEYS[2]) == 0 then
  redis.call('RPUSH', KEYS[2], '')
  redis.call('PEXPIRE', KEYS[2], 5000)
end
return 1",
);

/// KEYS locks. ARGV: lease in ms, the owner of each. For each whether it is held still, and has its lease anew.
pub(super) static RENEW: Script = Script::new(
    "renew",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = {}
for i, key in ipairs(KEYS) do
  local h = redis.call('HMGET', key, 'o', 'd')
  held[i] = 0
  if h[1] == ARGV[i + 1] and tonumber(h[2]) > now then
    redis.call('HSET', key, 'd', string.format('%.0f', now + ARGV[1]))
    held[i] = 1
  end
end
return held",
);

/// KEYS semaphore. ARGV: permits, most.
pub(super) static PERMITS: Script = Script::new(
    "make semaphore",
    "#!lua flags=
if redis.call('HSETNX', KEYS[1], 'v', ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], 'max', ARGV[2])
end",
);

/// KEYS semaphore, its tokens. 1, 0 if there is none, nil if there is no semaphore. Whoever leaves permits for others wakes the next.
pub(super) static TAKE_PERMIT: Script = Script::new(
    "take permit",
    "#!lua flags=allow-oom
local left = redis.call('HGET', KEYS[1], 'v')
if not left or tonumber(left) < 1 then return left and 0 end
if redis.call('HINCRBY', KEYS[1], 'v', -1) > 0 and redis.call('LLEN', KEYS[2]) == 0 then
  redis.call('RPUSH', KEYS[2], '')
  redis.call('PEXPIRE', KEYS[2], 5000)
end
return 1",
);

/// KEYS semaphore, its tokens. 1, 0 if it has all, nil if there is no semaphore.
pub(super) static GIVE_PERMIT: Script = Script::new(
    "give permit",
    "#!lua flags=allow-oom
local h = redis.call('HMGET', KEYS[1], 'v', 'max')
if not h[1] then return false end
if tonumber(h[1]) >= tonumber(h[2]) then return 0 end
redis.call('HINCRBY', KEYS[1], 'v', 1)
if redis.call('LLEN', KEYS[2]) == 0 then
  redis.call('RPUSH', KEYS[2], '')
  redis.call('PEXPIRE', KEYS[2], 5000)
end
return 1",
);

/// KEYS event, its stream. {whether it is set, the last entry of the stream}.
pub(super) static EVENT_LOOK: Script = Script::new(
    "look at event",
    "#!lua flags=no-writes
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {redis.call('EXISTS', KEYS[1]), last[1] and last[1][1] or '0-0'}",
);

/// KEYS event, its stream. ARGV: life in ms or 0.
pub(super) static EVENT_SET: Script = Script::new(
    "set event",
    "#!lua flags=allow-oom
if redis.call('SET', KEYS[1], '1', 'NX') then
  if ARGV[1] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
  redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 's', '')
end",
);

/// KEYS lock, its tokens, who waits, until when they are believed to live, stream. ARGV: owner of the lock, a token of this wait, for how many ms
/// to believe, whether what its last holder left is right again. The last entry of the stream; nil, and nothing done, if the lock is not held.
pub(super) static CONDITION_WAIT: Script = Script::new(
    "wait for condition",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local h = redis.call('HMGET', KEYS[1], 'o', 'd')
if h[1] ~= ARGV[1] or tonumber(h[2]) <= now then return false end
redis.call('RPUSH', KEYS[3], ARGV[2])
redis.call('HSET', KEYS[4], ARGV[2], string.format('%.0f', now + ARGV[3]))
redis.call('HDEL', KEYS[1], 'o', 'd')
if ARGV[4] == '1' then redis.call('HSET', KEYS[1], 'a', '0') end
if redis.call('LLEN', KEYS[2]) == 0 then
  redis.call('RPUSH', KEYS[2], '')
  redis.call('PEXPIRE', KEYS[2], 5000)
end
local last = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)
return last[1] and last[1][1] or '0-0'",
);

/// KEYS who waits, until when they are believed to live, stream. ARGV: how many, or -1 for all. Who has given no sign of life is passed over.
pub(super) static CONDITION_NOTIFY: Script = Script::new(
    "notify condition",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local left = tonumber(ARGV[1])
local some = false
while left ~= 0 do
  local token = redis.call('LPOP', KEYS[1])
  if not token then break end
  local lives = redis.call('HGET', KEYS[2], token)
  redis.call('HDEL', KEYS[2], token)
  if lives and tonumber(lives) > now then
    left = left - 1
    some = true
  end
end
if some then redis.call('XADD', KEYS[3], 'MAXLEN', 1, '*', 'n', '') end",
);

/// KEYS until when who waits is believed to live, stream. ARGV: token, for how many ms to believe. The last entry of the stream while it waits still,
/// nil if it was notified.
pub(super) static CONDITION_LOOK: Script = Script::new(
    "look at condition",
    "#!lua flags=allow-oom
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[2]))
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return last[1] and last[1][1] or '0-0'",
);

/// KEYS who waits, until when they are believed to live. ARGV: token. 0 if it was notified before.
pub(super) static CONDITION_LEAVE: Script = Script::new(
    "leave condition",
    "#!lua flags=allow-oom
redis.call('LREM', KEYS[1], 1, ARGV[1])
return redis.call('HDEL', KEYS[2], ARGV[1])",
);

/// KEYS barrier. ARGV: parties.
pub(super) static PARTIES: Script = Script::new(
    "make barrier",
    "#!lua flags=
if redis.call('HSETNX', KEYS[1], 'n', ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], 'g', '0', 'b', '0')
end",
);

/// KEYS barrier, who waits, stream. ARGV: token of this wait, for how many ms to believe that it lives.
///
/// nil: there is no barrier; {0}: it is broken, also since one who waits has given no sign of life; {1, place}: all have come; {2, place,
/// generation, last entry of the stream}.
pub(super) static BARRIER_COME: Script = Script::new(
    "come to barrier",
    "#!lua flags=allow-oom
local h = redis.call('HMGET', KEYS[1], 'n', 'g', 'b')
if not h[1] then return false end
if h[3] == '1' then return {0} end
local n = tonumber(h[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for _, lives in ipairs(redis.call('HVALS', KEYS[2])) do
  if tonumber(lives) <= now then
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[1], 'b', '1')
    redis.call('XADD', KEYS[3], 'MAXLEN', 1, '*', 'b', '')
    return {0}
  end
end
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', now + ARGV[2]))
local here = redis.call('HLEN', KEYS[2])
if here < n then
  local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
  return {2, here - 1, h[2], last[1] and last[1][1] or '0-0'}
end
redis.call('DEL', KEYS[2])
redis.call('HINCRBY', KEYS[1], 'g', 1)
redis.call('XADD', KEYS[3], 'MAXLEN', 1, '*', 'g', '')
return {1, n - 1}",
);

/// KEYS barrier, who waits, stream. ARGV: token, generation, for how many ms to believe that it lives, whether to break it now.
///
/// nil: there is no barrier; {0}: it is broken, also since another who waits has given no sign of life; {1}: all have come; {2, last entry}.
pub(super) static BARRIER_LOOK: Script = Script::new(
    "look at barrier",
    "#!lua flags=allow-oom
local h = redis.call('HMGET', KEYS[1], 'g', 'b')
if not h[1] then return false end
if h[1] ~= ARGV[2] then return {1} end
local broken = h[2] == '1' or redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0
if not broken then
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', now + ARGV[3]))
  broken = ARGV[4] == '1'
  for _, lives in ipairs(redis.call('HVALS', KEYS[2])) do
    if tonumber(lives) <= now then broken = true end
  end
  if broken then
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[1], 'b', '1')
    redis.call('XADD', KEYS[3], 'MAXLEN', 1, '*', 'b', '')
  end
end
if broken then return {0} end
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
return {2, last[1] and last[1][1] or '0-0'}",
);

/// KEYS barrier, who waits, stream. ARGV: whether it is broken from now on. Sends away who waits.
pub(super) static BARRIER_SET: Script = Script::new(
    "set barrier",
    "#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'b', ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', 1, '*', 'b', '')
return 1",
);

/// KEYS state of a queue. ARGV: capacity.
pub(super) static CAPACITY: Script = Script::new(
    "make queue",
    "#!lua flags=
redis.call('HSETNX', KEYS[1], 'max', ARGV[1])",
);

/// KEYS queue, state, tokens for room, tokens for items. ARGV: item. 1, 0 if it is full, 2 if it is closed, nil if there is no queue. Whoever leaves
/// room or items for others wakes the next of them.
pub(super) static QUEUE_PUT: Script = Script::new(
    "put into queue",
    "#!lua flags=
local h = redis.call('HMGET', KEYS[2], 'max', 'closed')
if not h[1] then return false end
if h[2] then
  if redis.call('LLEN', KEYS[3]) == 0 then
    redis.call('RPUSH', KEYS[3], '')
    redis.call('PEXPIRE', KEYS[3], 5000)
  end
  return 2
end
local len, max = redis.call('LLEN', KEYS[1]), tonumber(h[1])
if len >= max then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[2], 'u', 1)
if redis.call('LLEN', KEYS[4]) == 0 then
  redis.call('RPUSH', KEYS[4], '')
  redis.call('PEXPIRE', KEYS[4], 5000)
end
if len + 1 < max and redis.call('EXISTS', KEYS[3]) == 0 and max < 4503599627370496 then
  redis.call('RPUSH', KEYS[3], '')
  redis.call('PEXPIRE', KEYS[3], 5000)
end
return 1",
);

/// KEYS queue, state, tokens for room, tokens for items. {item}, 0 if it is empty, 2 if it is closed, too, nil if there is no queue.
pub(super) static QUEUE_GET: Script = Script::new(
    "get from queue",
    "#!lua flags=allow-oom
local h = redis.call('HMGET', KEYS[2], 'max', 'closed')
if not h[1] then return false end
local item = redis.call('LPOP', KEYS[1])
if not item and not h[2] then return 0 end
if tonumber(h[1]) < 4503599627370496 and redis.call('LLEN', KEYS[3]) == 0 then
  redis.call('RPUSH', KEYS[3], '')
  redis.call('PEXPIRE', KEYS[3], 5000)
end
if redis.call('EXISTS', KEYS[1]) == 0 and not h[2] then
  redis.call('DEL', KEYS[4])
elseif redis.call('LLEN', KEYS[4]) == 0 then
  redis.call('RPUSH', KEYS[4], '')
  redis.call('PEXPIRE', KEYS[4], 5000)
end
return item and {item} or 2",
);

/// KEYS state of a queue, tokens for room, tokens for items. nil if there is no queue. The tokens wake one of each, who wakes the next.
pub(super) static QUEUE_CLOSE: Script = Script::new(
    "close queue",
    "#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
redis.call('HSET', KEYS[1], 'closed', '1')
for i = 2, 3 do
  redis.call('RPUSH', KEYS[i], '')
  redis.call('PEXPIRE', KEYS[i], 5000)
end
return 1",
);

/// KEYS state of a queue, stream. 1, 0 if all are done already, nil if there is no queue.
pub(super) static QUEUE_DONE: Script = Script::new(
    "task done",
    "#!lua flags=allow-oom
local h = redis.call('HMGET', KEYS[1], 'max', 'u')
if not h[1] then return false end
local left = tonumber(h[2] or 0)
if left == 0 then return 0 end
redis.call('HINCRBY', KEYS[1], 'u', -1)
if left == 1 then redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'j', '') end
return 1",
);

/// KEYS state of a queue, stream. {how many are not done, last entry of the stream}; nil if there is no queue.
pub(super) static QUEUE_LEFT: Script = Script::new(
    "look at queue",
    "#!lua flags=no-writes
local h = redis.call('HMGET', KEYS[1], 'max', 'u')
if not h[1] then return false end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {tonumber(h[2] or 0), last[1] and last[1][1] or '0-0'}",
);
