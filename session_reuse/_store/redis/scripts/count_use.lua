-- Count one reuse in the header, once for each id, and with a holder only if it holds the lease.
-- KEYS: session, once, lease   ARGV: holder (empty: without a lease)   Reply: uses before this one, or -1 without a session
local header = redis.pcall('GETRANGE', KEYS[1], 0, 175)
if type(header) ~= 'string' or string.sub(header, 1, 4) ~= 'SRS1' then return -1 end
local uses = tonumber(string.sub(header, 159, 166)) or 0
if ARGV[1] ~= '' then
  local lease = redis.pcall('GETRANGE', KEYS[3], 21, -1)
  if lease ~= ARGV[1] then return uses end
end
if not redis.call('SET', KEYS[2], '1', 'NX', 'PX', 60000) then return uses - 1 end
redis.call('SETRANGE', KEYS[1], 158, string.format('%08d', math.min(99999999, uses + 1)))
return uses
