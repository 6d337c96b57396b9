-- Give a member of a pool back: it is free after a while, by the time of the server. A member that was removed stays away.
-- KEYS: pool   ARGV: member, ms, end of the reservation that must still stand (0: any)
local clock = redis.call('TIME')
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then return 0 end
-- The holder may have given it back while another agent looked at its lease: then it is free now, not after the lease.
local reserved = tonumber(ARGV[3]) or 0
if reserved > 0 and tonumber(score) ~= reserved then return 0 end
local free = clock[1] * 1000000 + clock[2] + (tonumber(ARGV[2]) or 0) * 1000
redis.call('ZADD', KEYS[1], string.format('%.0f', free), ARGV[1])
return 1
