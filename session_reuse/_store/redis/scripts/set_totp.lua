-- Keep the sealed secret of one-time codes, or none, if it is still what the caller has read.
-- KEYS: totp   ARGV: value (empty for none), what must be there (left out: anything)   Reply: 1 | 0
if ARGV[2] and redis.pcall('GET', KEYS[1]) ~= ARGV[2] then return 0 end
if ARGV[1] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[1])
return 1
