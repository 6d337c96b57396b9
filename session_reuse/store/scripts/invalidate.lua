-- Delete a session for everyone and leave a tombstone that refuses late saves of all who hold it.
-- KEYS: session, lease, tombstone, agents, quarantine   ARGV: tombstone ms
-- Reply: {epoch, existed (0|1), agents}
local now = redis.call('TIME')
local epoch = now[1] * 1000000 + now[2]
local function above(text)
  epoch = math.max(epoch, (tonumber(text) or 0) + 1)
end
if redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('GETRANGE', KEYS[1], 0, 3) == 'SRS1' then
  above(redis.call('GETRANGE', KEYS[1], 16, 35))
  above(redis.call('GETRANGE', KEYS[1], 36, 55))
end
if redis.call('TYPE', KEYS[2]).ok == 'string' then above(redis.call('GETRANGE', KEYS[2], 0, 19)) end
if redis.call('TYPE', KEYS[3]).ok == 'string' then above(redis.call('GET', KEYS[3])) end
local agents = {}
if redis.call('TYPE', KEYS[4]).ok == 'set' then agents = redis.call('SMEMBERS', KEYS[4]) end
local existed = redis.call('DEL', KEYS[1])
redis.call('DEL', KEYS[2], KEYS[4], KEYS[5])
local text = string.format('%020.0f', epoch)
redis.call('SET', KEYS[3], text, 'PX', ARGV[1])
return {text, existed, agents}
