-- Count one reuse in the header.   KEYS: session   Reply: uses before this one, or -1 without a session
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('GETRANGE', KEYS[1], 0, 3) ~= 'SRS1' then return -1 end
local uses = tonumber(redis.call('GETRANGE', KEYS[1], 158, 165)) or 0
redis.call('SETRANGE', KEYS[1], 158, string.format('%08d', math.min(99999999, uses + 1)))
return uses
