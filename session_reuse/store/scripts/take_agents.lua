-- Take the agents of a session that is gone; those of one that lives again stay.
-- KEYS: session, agents   Reply: agents
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('TYPE', KEYS[2]).ok ~= 'set' then return {} end
local agents = redis.call('SMEMBERS', KEYS[2])
redis.call('DEL', KEYS[2])
return agents
