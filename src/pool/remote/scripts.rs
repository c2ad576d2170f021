//! What happens on the server in one step. A script that ends or gives back something runs on a full server too; [`ADD`], which brings more,
//! is refused there, and its sender waits.

use crate::server::script::Script;

/// How long the keys of a group stay that nobody looks after any more, in milliseconds.
pub(super) const KEPT: i64 = 3_600_000;

/// A parent comes. KEYS plan par t ctl. ARGV me, lease, plan, build, kept. 0: there are other parents, whose plan is another. One that
/// gives no sign of life is no reason to wait for it.
pub(super) static OPEN: Script = Script::new(
    "open a pool",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local live = 0
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] and tonumber(all[i + 1]) > now then live = live + 1 end
end
local plan = redis.call('HMGET', KEYS[1], 'plan', 'build', 'state')
if plan[1] ~= ARGV[3] or plan[2] ~= ARGV[4] or plan[3] ~= 'open' then
  if plan[3] == 'open' and live > 0 then return 0 end
  if plan[1] ~= ARGV[3] or plan[2] ~= ARGV[4] then redis.call('DEL', KEYS[2]) end
  redis.call('HSET', KEYS[1], 'plan', ARGV[3], 'build', ARGV[4], 'state', 'open')
  redis.call('HINCRBY', KEYS[1], 'turn', 1)
end
redis.pcall('XGROUP', 'CREATE', KEYS[3], 'w', '0', 'MKSTREAM')
redis.call('HSET', KEYS[2], ARGV[1], now + ARGV[2])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', '1000', '*', 'm', 'look')
for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[5]) end
return 1",
);

/// Tasks of a parent. KEYS t seq par. ARGV me, number of the first, frames. Those that are there already, by their number, are not added
/// again. -1: some before them are not there, which the server had said it has. -2: the parent was taken for dead.
pub(super) static ADD: Script = Script::new(
    "add tasks",
    "#!lua flags=
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return -2 end
local last = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
local first = tonumber(ARGV[2])
if last < first - 1 then return -1 end
for i = 3, #ARGV do
  if first + i - 3 > last then
    redis.call('XADD', KEYS[1], '*', 'p', ARGV[i])
    last = first + i - 3
  end
end
redis.call('HSET', KEYS[2], ARGV[1], last)
return last",
);

/// A parent lives. KEYS par hb plan seq t ctl meta r. ARGV me, lease, kept, last result read. Its highest task or -1 if it was taken for
/// dead, how many workers there are, how many agents, the epoch.
pub(super) static PARENT_BEAT: Script = Script::new(
    "renew a pool",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local last = -1
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 and redis.call('HGET', KEYS[3], 'state') == 'open' then
  redis.call('HSET', KEYS[1], ARGV[1], now + ARGV[2])
  last = tonumber(redis.call('HGET', KEYS[4], ARGV[1]) or '0')
  if ARGV[4] ~= '0' then redis.call('XTRIM', KEYS[8], 'MINID', ARGV[4]) end
end
local workers, agents = 0, 0
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  local d, n = string.match(all[i + 1], '^(%d+):(%d+)$')
  if d and tonumber(d) > now then workers = workers + tonumber(n); agents = agents + 1 end
end
for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
return {last, workers, agents, redis.call('HGET', KEYS[7], 'epoch')}",
);

/// A parent goes. KEYS par plan t ctl seq r. ARGV me, kept. With the last one the pool is closed, and who waits for tasks is woken.
pub(super) static CLOSE: Script = Script::new(
    "close a pool",
    "#!lua flags=allow-oom
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('UNLINK', KEYS[6])
local left = redis.call('HLEN', KEYS[1])
if left == 0 and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HSET', KEYS[2], 'state', 'closed')
  redis.call('UNLINK', KEYS[3])
end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', '1000', '*', 'm', 'look')
redis.call('PEXPIRE', KEYS[4], ARGV[2])
return left",
);

/// An agent lives. KEYS hb par plan meta ctl t. ARGV me, lease, its workers, kept. State and turn of the pool, the epoch, whether its lease
/// had not ended, then the parents.
pub(super) static AGENT_BEAT: Script = Script::new(
    "renew an agent",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local old = redis.call('HGET', KEYS[1], ARGV[1])
local deadline = old and tonumber(string.match(old, '^(%d+)'))
redis.call('HSET', KEYS[1], ARGV[1], (now + ARGV[2]) .. ':' .. ARGV[3])
local plan = redis.call('HMGET', KEYS[3], 'state', 'turn')
local out = {plan[1] or '', plan[2] or '0', redis.call('HGET', KEYS[4], 'epoch') or '', (deadline and deadline > now) and 1 or 0}
for _, parent in ipairs(redis.call('HKEYS', KEYS[2])) do out[#out + 1] = parent end
for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
return out",
);

/// Tasks come to an end. KEYS t par, then others. ARGV kept, then for each: id, what, parent, frame, which key is the parent's, which the
/// blob of the task (0 for none). What: `r` its result is in the frame, `q` it is queued again as the frame says, `d` nobody wants it.
/// Whoever comes first for an id ends it, and nobody after: for each 1, or 0 where this changed nothing or its parent is gone.
pub(super) static SETTLE: Script = Script::new(
    "settle tasks",
    "#!lua flags=allow-oom
local ended = {}
for i = 2, #ARGV, 6 do
  local id, what, parent, frame = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local mine, blob = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local done = redis.call('XACK', KEYS[1], 'w', id)
  if done == 1 then
    redis.call('XDEL', KEYS[1], id)
    if what == 'q' then
      redis.call('XADD', KEYS[1], '*', 'p', frame)
    else
      if blob > 0 then redis.call('UNLINK', KEYS[blob]) end
      if what == 'r' then
        if redis.call('HEXISTS', KEYS[2], parent) == 1 then
          redis.call('XADD', KEYS[mine], '*', 'p', frame)
          redis.call('PEXPIRE', KEYS[mine], ARGV[1])
        else
          done = 0
        end
      end
    end
  end
  ended[#ended + 1] = done
end
return ended",
);

/// Keeps a large result, on a full server, too. KEYS its key. ARGV bytes, kept.
pub(super) static PUT: Script = Script::new(
    "keep a result",
    "#!lua flags=allow-oom
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1",
);

/// Who has given no sign of life is dead from now on, parent or agent; nothing else decides that. What agents hold that are: KEYS t hb par seq. ARGV how many at most. Id, frame and agent in turn; then the
/// parents that have gone.
pub(super) static LOST: Script = Script::new(
    "look for lost agents",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local tasks, parents = {}, {}
local all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  if tonumber(all[i + 1]) <= now then
    redis.call('HDEL', KEYS[3], all[i])
    redis.call('HDEL', KEYS[4], all[i])
    parents[#parents + 1] = all[i]
  end
end
if redis.call('EXISTS', KEYS[1]) == 0 then return {tasks, parents} end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], 'w')) do
  local name, pending = consumer[2], consumer[4]
  local beat = redis.call('HGET', KEYS[2], name)
  local deadline = beat and tonumber(string.match(beat, '^(%d+)'))
  if not deadline or deadline <= now then
    if pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'w', name)
      redis.call('HDEL', KEYS[2], name)
    else
      for _, held in ipairs(redis.call('XPENDING', KEYS[1], 'w', '-', '+', ARGV[1], name)) do
        local found = redis.call('XRANGE', KEYS[1], held[1], held[1])
        if #found == 0 then
          redis.call('XACK', KEYS[1], 'w', held[1])
        elseif #tasks < 3 * tonumber(ARGV[1]) then
          tasks[#tasks + 1] = held[1]
          tasks[#tasks + 1] = found[1][2][2]
          tasks[#tasks + 1] = name
        end
      end
    end
  end
end
return {tasks, parents}",
);

/// What the server thinks an agent has, and it may not. KEYS t. ARGV me, for how long at least, how many at most. Ids and frames in turn.
pub(super) static MINE: Script = Script::new(
    "look for tasks of an agent",
    "#!lua flags=allow-oom
local tasks = {}
local held = redis.pcall('XPENDING', KEYS[1], 'w', 'IDLE', ARGV[2], '-', '+', ARGV[3], ARGV[1])
if held.err then return tasks end
for _, one in ipairs(held) do
  local found = redis.call('XRANGE', KEYS[1], one[1], one[1])
  if #found == 0 then
    redis.call('XACK', KEYS[1], 'w', one[1])
  else
    tasks[#tasks + 1] = one[1]
    tasks[#tasks + 1] = found[1][2][2]
  end
end
return tasks",
);

/// An agent goes. KEYS t hb. ARGV me. What it still holds is found by the others.
pub(super) static LEAVE: Script = Script::new(
    "leave a pool",
    "#!lua flags=allow-oom
redis.call('HDEL', KEYS[2], ARGV[1])
local held = redis.pcall('XPENDING', KEYS[1], 'w', '-', '+', 1, ARGV[1])
if not held.err and #held == 0 then redis.pcall('XGROUP', 'DELCONSUMER', KEYS[1], 'w', ARGV[1]) end
return 1",
);

/// A build of the program has a pool. KEYS builds. ARGV build, for how long, kept.
pub(super) static REGISTER: Script = Script::new(
    "register a build",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], now + ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1",
);

/// Which builds have pools. KEYS builds.
pub(super) static BUILDS: Script = Script::new(
    "look for builds",
    "#!lua flags=allow-oom
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local found = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if tonumber(all[i + 1]) > now then found[#found + 1] = all[i] end
end
return found",
);
