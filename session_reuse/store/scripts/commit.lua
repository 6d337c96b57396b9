-- Put a staged payload in place, if it is still right to. Reads and patches headers, never the body.
-- KEYS: session, staging, lease, tombstone, agents, quarantine
-- ARGV: expectation, revision or damaged head, epoch, save id, token, holder, release (0|1), age µs (-1: go by the
--       epoch), ttl ms, agent,
--       agents ttl ms, fresh login (0|1), score change, created_at
-- Reply: {outcome, epoch, uses, score}; outcomes: saved recovered recreated duplicate conflict exists unstaged;
--        {'stale', 1 when a session is there | 0}
local HEAD = 175
local expectation, known, epoch, save_id, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

-- Each redis.call costs the server as much as a small command of its own: one does for "is it a string, and which".
local function string_at(key, first, last)
  local found = redis.pcall('GETRANGE', key, first, last)
  return type(found) == 'string' and found or ''
end

local function release()
  if ARGV[7] == '1' and string_at(KEYS[3], 0, -1) == token .. ':' .. ARGV[6] then redis.call('DEL', KEYS[3]) end
end

-- Whose affinity points to a session is on its list, so that the affinity goes when the session goes.
local function enlist()
  if ARGV[10] ~= '' then
    redis.call('SADD', KEYS[5], ARGV[10])
    redis.call('PEXPIRE', KEYS[5], ARGV[11])
  end
end

local function refuse(outcome)
  redis.call('DEL', KEYS[2])
  if outcome ~= 'conflict' then release() end
  local exists = redis.call('EXISTS', KEYS[1])
  if exists == 1 then enlist() end
  return {outcome, exists}
end

local head = string_at(KEYS[1], 0, HEAD)
local ours = string.sub(head, 1, 4) == 'SRS1' and #head == HEAD + 1

-- The same save again: its reply was lost on the way.
if ours then
  for start = 69, 105, 12 do
    if string.sub(head, start, start + 11) == save_id then
      redis.call('DEL', KEYS[2])
      release()
      return {'duplicate', string.sub(head, 17, 36), string.sub(head, 159, 166), string.sub(head, 167, 170)}
    end
  end
end

-- Fencing: whoever lost the lease to a later holder changes nothing.
if token ~= '00000000000000000000' then
  local lease = string_at(KEYS[3], 0, 19)
  if #lease == 20 and lease > token then return refuse('stale') end
  if ours and string.sub(head, 37, 56) > token then return refuse('stale') end
end

-- Invalidation: a state from before it stays dead.
local tombstone = string_at(KEYS[4], 0, 19)
if #tombstone ~= 20 then tombstone = '00000000000000000000' end
local current = tombstone
if ours and string.sub(head, 17, 36) > current then current = string.sub(head, 17, 36) end
if expectation == 'revision' or ARGV[8] == '-1' then
  if current > epoch then return refuse('stale') end
else
  local now = redis.call('TIME')
  local entered = now[1] * 1000000 + now[2] - tonumber(ARGV[8])
  if tonumber(tombstone) > entered then return refuse('stale') end
end

local staged = string_at(KEYS[2], 0, HEAD)
if staged == '' then return {'unstaged'} end

-- Compare and set.
local outcome = 'saved'
if expectation == 'revision' then
  if head == '' and redis.call('EXISTS', KEYS[1]) == 0 then
    outcome = 'recreated'
  elseif not ours then
    return refuse('conflict')
  elseif string.sub(head, 57, 80) ~= known then
    -- An older version of the same session: a fail-over lost the save that we know of.
    if string.sub(head, 57, 68) < string.sub(known, 1, 12) and string.sub(head, 117, 130) == ARGV[14] then
      outcome = 'recovered'
    else
      return refuse('conflict')
    end
  end
elseif expectation == 'absent' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return refuse('conflict') end
elseif expectation == 'unknown' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return refuse('exists') end
elseif redis.call('EXISTS', KEYS[1]) == 1 then -- corrupt
  if head ~= known then return refuse('conflict') end
  redis.call('RENAME', KEYS[1], KEYS[6])
  redis.call('PEXPIRE', KEYS[6], ARGV[9])
  ours = false
end

local uses, score = '00000000', 0
if ours and ARGV[12] == '0' then
  uses, score = string.sub(head, 159, 166), tonumber(string.sub(head, 167, 170)) or 0
end
score = string.format('%04d', math.min(9999, math.max(0, score + tonumber(ARGV[13]))))
if ours and string.sub(head, 37, 56) > token then token = string.sub(head, 37, 56) end
if string.sub(staged, 17, 56) ~= current .. token then redis.call('SETRANGE', KEYS[2], 16, current .. token) end
if string.sub(staged, 159, 170) ~= uses .. score then redis.call('SETRANGE', KEYS[2], 158, uses .. score) end
redis.call('RENAME', KEYS[2], KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[9])
enlist()
token = ARGV[5]
release()
return {outcome, current, uses, score}
