-- Replace an affinity entry that is still what the caller has read, with the time to live that it has.
-- KEYS: affinity   ARGV: the entry that was read, the new one   Reply: 1 | 0
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
