-- Name the sessions whose deadline is over, oldest first.
-- KEYS: bucket   ARGV: how many at most   Reply: {now ms, member, score, member, score, ...}
local now = redis.call('TIME')
local text = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
table.insert(found, 1, text)
return found
