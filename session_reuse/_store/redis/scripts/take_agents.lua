-- Take the agents of a session that is gone; those of one that lives again stay.
-- KEYS: session, agents   Reply: agents
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('TYPE', KEYS[2]).ok ~= 'zset' then return {} end
local agents = redis.call('ZRANGE', KEYS[2], 0, -1)
redis.call('DEL', KEYS[2])
return agents
