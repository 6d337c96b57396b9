-- Keep what a probe has found out about a login, with the time of the server: hosts may disagree on theirs.
-- KEYS: liveness   ARGV: verdict, created_at of the login, ttl ms
local clock = redis.call('TIME')
local now = string.format('%020.0f', clock[1] * 1000000 + clock[2])
return redis.call('SET', KEYS[1], now .. ' ' .. ARGV[2] .. ' ' .. ARGV[1], 'PX', ARGV[3])
