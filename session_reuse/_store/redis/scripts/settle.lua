-- Remove entries of the index, or give them their new deadlines, if nobody has touched them since they were seen.
-- KEYS: bucket   ARGV: member, score seen, ms to live (-1: remove), member, score seen, ...   Reply: 1 | 0 for each
local DAY = 86400000
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local settled, longest = {}, 0
for at = 1, #ARGV, 3 do
  local done = 0
  if redis.call('ZSCORE', KEYS[1], ARGV[at]) == ARGV[at + 1] then
    done = 1
    if ARGV[at + 2] == '-1' then
      redis.call('ZREM', KEYS[1], ARGV[at])
    else
      redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[at + 2]), ARGV[at])
      longest = math.max(longest, tonumber(ARGV[at + 2]))
    end
  end
  settled[#settled + 1] = done
end
-- As in index.lua: the bucket outlives its last entry by a day at least.
if longest > 0 and redis.call('PTTL', KEYS[1]) < longest + DAY then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', longest + 2 * DAY))
end
return settled
