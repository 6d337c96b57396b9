-- Enter a session into the index of deadlines, by the server's own clock.
-- KEYS: bucket   ARGV: member, ms to live   Reply: {1 when it is new | 0, score}
-- The score changes each time, so that a clean-up that has seen the old one leaves the entry alone.
-- Where no clean-up runs, entries end here a day after their deadlines, and the bucket a day after its last entry.
local DAY = 86400000
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local score = string.format('%.0f', now + ARGV[2])
local new = redis.call('ZADD', KEYS[1], score, ARGV[1])
local overdue = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - DAY), 'LIMIT', 0, 10)
if #overdue > 0 then redis.call('ZREM', KEYS[1], unpack(overdue)) end
if redis.call('PTTL', KEYS[1]) < ARGV[2] + DAY then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[2] + 2 * DAY)) -- rarely: one more day
end
return {new, score}
