-- Enter a session into the index of deadlines, by the server's own clock.
-- KEYS: bucket   ARGV: member, ms to live   Reply: {1 when it is new | 0, score}
-- The score changes each time, so that a clean-up that has seen the old one leaves the entry alone.
local now = redis.call('TIME')
local score = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2])
return {redis.call('ZADD', KEYS[1], score, ARGV[1]), score}
