-- Remove an affinity that still points to a session that is gone.   KEYS: affinity   ARGV: fingerprint   Reply: 1 | 0
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
