-- Add members to a pool, the first to be used, or remove them. Counts once for each request: a copy of it that comes late
-- does not undo a later one.
-- KEYS: pool, once   ARGV: add | remove, member, member, ...   Reply: how many were added or removed
local done = redis.call('GET', KEYS[2])
if done then return tonumber(done) end
local count = 0
for at = 2, #ARGV do
  if ARGV[1] == 'add' then
    count = count + redis.call('ZADD', KEYS[1], 'NX', 0, ARGV[at])
  else
    count = count + redis.call('ZREM', KEYS[1], ARGV[at])
  end
end
redis.call('SET', KEYS[2], count, 'PX', 86400000)
return count
