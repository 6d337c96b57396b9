-- Put a staged payload in place, or keep an unchanged session for longer, if the store holds what the caller expects.
-- Reads and patches headers, never the body.
-- KEYS: session, staging, lease, tombstone, agents, quarantine, once (with a score change or a lease), cancelled (lease)
-- ARGV: 1 precondition (matches | absent | corrupt | unchanged), 2 known (version and save ids | damaged header),
--       3 invalidated_at, 4 save id, 5 token, 6 holder, 7 release (0|1), 8 may recreate (0|1), 9 ttl ms (0: leave it),
--       10 new login (0|1), 11 score change (counts once for each key `once`), 12 created_at, 13 ms since the change was made, 14 and on: agents
-- Reply: {outcome, invalidated_at, uses, score, saved_at, ttl}
-- Outcomes: saved recovered recreated duplicate unchanged | conflict stale gone unstaged
local precondition, known, save_id, token = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local NO_TOKEN = '00000000000000000000'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Each redis.call costs the server as much as a small command: one answers "is it a string, and which".
local function string_at(key, first, last)
  local found = redis.pcall('GETRANGE', key, first, last)
  return type(found) == 'string' and found or ''
end

local function release()
  if ARGV[7] == '0' or ARGV[6] == '' then return end
  if string_at(KEYS[3], 21, -1) == ARGV[6] then redis.call('DEL', KEYS[3]) end -- whatever its token: release.lua
  -- A request of this holder that is still on its way takes no lease, also where a fail-over has lost the first one.
  redis.call('SET', KEYS[8], '1', 'PX', 60000)
end

-- The affinity of the latest agents ends when the session ends, so the session lists them. The list is bounded.
local function enlist()
  for at = 14, #ARGV do
    local added = redis.pcall('ZADD', KEYS[5], now, ARGV[at])
    if type(added) == 'table' then -- a set of an earlier version
      redis.call('DEL', KEYS[5])
      added = redis.call('ZADD', KEYS[5], now, ARGV[at])
    end
    if added == 1 then redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -65) end
  end
  if #ARGV >= 14 then redis.call('PEXPIRE', KEYS[5], ARGV[9] + 3600000) end
end

local function refuse(outcome)
  redis.call('DEL', KEYS[2])
  if outcome ~= 'conflict' and outcome ~= 'gone' then release() end
  return {outcome, '0', '0', '0', '0', '0'}
end

-- Nobody shortens the time to live that another save has set. The time at which the session retires bounds both.
local function keep(left, retire_at)
  local target = math.max(left, tonumber(ARGV[9]))
  local retires = tonumber(retire_at) or 0
  if retires > now then
    target = math.min(target, retires - now)
  elseif retires > 0 then
    target = math.max(left, 1)
  end
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', target))
end

-- A mark counts once, also when two processes have read it from one disk, and when the header has forgotten its save.
local function score_of(before)
  local change = tonumber(ARGV[11])
  if change ~= 0 and not redis.call('SET', KEYS[7], '1', 'NX', 'PX', 86400000) then change = 0 end
  return string.format('%04d', math.min(9999, math.max(0, (tonumber(before) or 0) + change)))
end

-- Twenty digits, or zeros for anything else: as text, damage would be later than every time and refuse all saves for ever.
local function time_in(text)
  return #text == 20 and not string.find(text, '%D') and text or NO_TOKEN
end

local header = string_at(KEYS[1], 0, 175)
local ours = string.sub(header, 1, 4) == 'SRS1' and #header == 176

-- The same save again: its reply was lost on the way.
if ours and precondition ~= 'unchanged' then
  for start = 69, 105, 12 do
    if string.sub(header, start, start + 11) == save_id then
      redis.call('DEL', KEYS[2])
      release()
      return {'duplicate', string.sub(header, 17, 36), string.sub(header, 159, 166), string.sub(header, 167, 170),
        string.sub(header, 131, 144), string.sub(header, 171, 174)}
    end
  end
end

-- Fencing: a holder whose lease went to another holder changes nothing. After a fail-over to a server with a late clock
-- the token of that one may be lower, so the lease is compared by its holder.
if token ~= NO_TOKEN then
  local lease = string_at(KEYS[3], 0, -1)
  if time_in(string.sub(lease, 1, 20)) ~= NO_TOKEN and string.sub(lease, 22) ~= ARGV[6] then return refuse('stale') end
  if ours and time_in(string.sub(header, 37, 56)) > token then return refuse('stale') end
end

-- Invalidation: a state from before it stays dead. One that the caller does not know came later, whatever its time: after
-- a fail-over that has lost the one before, to a server with a late clock, it has an earlier time than that one.
local current = time_in(string_at(KEYS[4], 0, 19))
if ours and precondition ~= 'corrupt' and time_in(string.sub(header, 17, 36)) > current then
  current = string.sub(header, 17, 36)
end
if current ~= NO_TOKEN and current ~= ARGV[3] then return refuse('stale') end

if precondition == 'unchanged' then
  if not ours then return refuse('gone') end
  if string.sub(header, 117, 130) ~= ARGV[12] then return refuse('stale') end
  local score = score_of(string.sub(header, 167, 170))
  if score ~= string.sub(header, 167, 170) then redis.call('SETRANGE', KEYS[1], 166, score) end
  -- A later holder that changes nothing still fences off the ones before it.
  if string.sub(header, 37, 56) < token then redis.call('SETRANGE', KEYS[1], 36, token) end
  if ARGV[9] ~= '0' then keep(redis.call('PTTL', KEYS[1]), string.sub(header, 145, 158)) end
  enlist()
  release()
  return {'unchanged', current, string.sub(header, 159, 166), score, string.sub(header, 131, 144),
    string.sub(header, 171, 174)}
end

local staged = string_at(KEYS[2], 0, 175)
if staged == '' then return {'unstaged', '0', '0', '0', '0', '0'} end

-- Compare and set.
local outcome = 'saved'
if header == '' and redis.call('EXISTS', KEYS[1]) == 0 then
  if ARGV[8] == '0' then return refuse('stale') end -- no tombstone is left that could prove that it may come back
  if precondition == 'matches' then outcome = 'recreated' end
elseif precondition == 'matches' and ours then
  if string.sub(header, 57, 80) ~= string.sub(known, 1, 24) then
    -- An ancestor of the known save: a fail-over has lost the saves since.
    local newest, ancestor = string.sub(header, 69, 80), false
    for start = 25, 49, 12 do ancestor = ancestor or string.sub(known, start, start + 11) == newest end
    if not ancestor or string.sub(header, 117, 130) ~= ARGV[12] then return refuse('conflict') end
    outcome = 'recovered'
  end
elseif precondition == 'corrupt' and header == known then
  redis.call('RENAME', KEYS[1], KEYS[6])
  redis.call('PEXPIRE', KEYS[6], ARGV[9])
  ours = false
else
  return refuse('conflict')
end

-- A change that waited is as old as it was made: else it would win over later ones that wait for longer.
local uses, score, saved_at, left = '00000000', '0000', now - tonumber(ARGV[13]), 0
local ttl = string.format('%04x', math.min(65535, math.floor(ARGV[9] / 60000)))
if ours then
  saved_at = math.max(saved_at, tonumber(string.sub(header, 131, 144)) or 0)
  if time_in(string.sub(header, 37, 56)) > token then token = string.sub(header, 37, 56) end
  if ARGV[10] == '0' then
    uses, score = string.sub(header, 159, 166), string.sub(header, 167, 170)
    left = redis.call('PTTL', KEYS[1])
    if string.sub(header, 171, 174) > ttl then ttl = string.sub(header, 171, 174) end
  end
end
score = score_of(score)
saved_at = string.format('%014.0f', saved_at)
if string.sub(staged, 17, 56) ~= current .. token then redis.call('SETRANGE', KEYS[2], 16, current .. token) end
redis.call('SETRANGE', KEYS[2], 130, saved_at .. string.sub(staged, 145, 158) .. uses .. score .. ttl)
redis.call('RENAME', KEYS[2], KEYS[1])
keep(left, string.sub(staged, 145, 158))
enlist()
release()
return {outcome, current, uses, score, saved_at, ttl}
