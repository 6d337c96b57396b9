-- Refresh the time to live of a state that has not changed. No payload travels.
-- KEYS: session, lease, tombstone, agents
-- ARGV: epoch, token, holder, release (0|1), ttl ms, agent, agents ttl ms, score change
-- Reply: {'unchanged', score} | {'stale', 1 when a session is there | 0} | {'gone'}
local token = ARGV[2]

-- Each redis.call costs the server as much as a small command of its own: one does for "is it a string, and which".
local function string_at(key, first, last)
  local found = redis.pcall('GETRANGE', key, first, last)
  return type(found) == 'string' and found or ''
end

local function finish(outcome, score)
  if ARGV[4] == '1' and string_at(KEYS[2], 0, -1) == token .. ':' .. ARGV[3] then redis.call('DEL', KEYS[2]) end
  return {outcome, score}
end

-- Whose affinity points to a session is on its list, so that the affinity goes when the session goes.
local function enlist()
  if ARGV[6] ~= '' then
    redis.call('SADD', KEYS[4], ARGV[6])
    redis.call('PEXPIRE', KEYS[4], ARGV[7])
  end
end

local function refuse()
  local exists = redis.call('EXISTS', KEYS[1])
  if exists == 1 then enlist() end
  return finish('stale', exists)
end

local head = string_at(KEYS[1], 0, 175)
if token ~= '00000000000000000000' then
  local lease = string_at(KEYS[2], 0, 19)
  if (#lease == 20 and lease > token) or string.sub(head, 37, 56) > token then return refuse() end
end
local tombstone = string_at(KEYS[3], 0, 19)
if (#tombstone == 20 and tombstone > ARGV[1]) or string.sub(head, 17, 36) > ARGV[1] then return refuse() end
if string.sub(head, 1, 4) ~= 'SRS1' then return {'gone'} end

local score = string.sub(head, 167, 170)
if ARGV[8] ~= '0' then
  score = string.format('%04d', math.min(9999, math.max(0, (tonumber(score) or 0) + tonumber(ARGV[8]))))
  redis.call('SETRANGE', KEYS[1], 166, score)
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
enlist()
return finish('unchanged', score)
