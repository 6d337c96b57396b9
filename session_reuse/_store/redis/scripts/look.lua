-- Return the server's time and the last invalidation of a session.   KEYS: tombstone   Reply: {now in µs, invalidated_at}
local now = redis.call('TIME')
local tombstone = redis.pcall('GETRANGE', KEYS[1], 0, 19)
if type(tombstone) ~= 'string' or #tombstone ~= 20 or string.find(tombstone, '%D') then tombstone = '0' end
return {string.format('%.0f', now[1] * 1000000 + now[2]), tombstone}
