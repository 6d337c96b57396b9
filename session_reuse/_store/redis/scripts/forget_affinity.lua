-- Remove an affinity that still points to a session that is gone. A seal may follow the name, behind a line feed.
-- KEYS: affinity   ARGV: fingerprint   Reply: 1 | 0
local found = redis.pcall('GETRANGE', KEYS[1], 0, -1)
if type(found) ~= 'string' or string.match(found, '^[^\n]*') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
