-- Remove entries of the index, or give them their new deadlines, if nobody has touched them since they were seen.
-- KEYS: bucket   ARGV: member, score seen, ms to live (-1: remove), member, score seen, ...   Reply: 1 | 0 for each
local now = redis.call('TIME')
local settled = {}
for at = 1, #ARGV, 3 do
  local done = 0
  if redis.call('ZSCORE', KEYS[1], ARGV[at]) == ARGV[at + 1] then
    done = 1
    if ARGV[at + 2] == '-1' then
      redis.call('ZREM', KEYS[1], ARGV[at])
    else
      local score = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[at + 2]
      redis.call('ZADD', KEYS[1], string.format('%.0f', score), ARGV[at])
    end
  end
  settled[#settled + 1] = done
end
return settled
