-- Take or keep the exclusive lease of a session. Of the session itself, only the token in its header changes.
-- KEYS: session, lease, tombstone, cancelled   ARGV: holder, lease ms
-- Reply: {'ok', token} | {'busy', ms left} | {'foreign', ms left}
--
-- The fencing token is server time in µs and greater than every token and invalidation on record, so it grows
-- even when a fail-over or a restart has lost the last ones.
if redis.call('EXISTS', KEYS[4]) == 1 then return {'busy', 0} end -- the holder has given up already
local held = redis.call('TYPE', KEYS[2]).ok
local token, holder
if held == 'string' then
  token, holder = string.match(redis.call('GET', KEYS[2]), '^(%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d):(.+)$')
end
if held ~= 'none' and not token then
  return {'foreign', redis.call('PTTL', KEYS[2])}
end
if token and holder ~= ARGV[1] then
  return {'busy', redis.call('PTTL', KEYS[2])}
end
if not token then
  local now = redis.call('TIME')
  local least = now[1] * 1000000 + now[2]
  local ours = redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('GETRANGE', KEYS[1], 0, 3) == 'SRS1'
  if ours then least = math.max(least, (tonumber(redis.call('GETRANGE', KEYS[1], 36, 55)) or 0) + 1) end
  least = math.max(least, (tonumber(redis.call('GETRANGE', KEYS[3], 0, 19)) or 0) + 1)
  token = string.format('%020.0f', least)
  redis.call('SET', KEYS[2], token .. ':' .. ARGV[1], 'PX', ARGV[2])
  -- A save of an earlier holder that still waits is fenced off from here on, also if this lease lapses.
  if ours then redis.call('SETRANGE', KEYS[1], 36, token) end
else
  redis.call('SET', KEYS[2], token .. ':' .. ARGV[1], 'PX', ARGV[2])
end
return {'ok', token}
