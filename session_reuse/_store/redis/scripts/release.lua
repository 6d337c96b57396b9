-- Give back a lease that is still ours, and refuse requests of this holder that are still on their way.
-- Its token may be a later one than the holder knows: a repeated request takes the lease anew after an invalidation.
-- KEYS: lease, cancelled, session   ARGV: holder   Reply: 1 | 0
local lease = redis.pcall('GETRANGE', KEYS[1], 0, -1)
if type(lease) ~= 'string' then lease = '' end
local token = string.sub(lease, 1, 20)
local mine = string.sub(lease, 22) == ARGV[1]
if mine then
  redis.call('DEL', KEYS[1]) -- first: once it has written, a script may go on where memory is full
  -- The lease ends here. The header keeps its token, so that an earlier holder stays fenced off.
  local header = redis.pcall('GETRANGE', KEYS[3], 0, 55)
  if type(header) == 'string' and string.sub(header, 1, 4) == 'SRS1' and string.sub(header, 37, 56) < token then
    redis.call('SETRANGE', KEYS[3], 36, token)
  end
end
redis.call('SET', KEYS[2], '1', 'PX', 60000) -- also when a fail-over or an invalidation has ended the lease
return mine and 1 or 0
