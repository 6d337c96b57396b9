-- Give a member of a pool back: it is free after a while, by the time of the server. A member that was removed stays away.
-- KEYS: pool   ARGV: member, ms, end of the reservation that must still stand (0: any)
local clock = redis.call('TIME')
local score = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '')
if not score then return 0 end
-- The holder may have given it back while another agent looked at its lease: then it is free now, not after the lease.
local reserved = tonumber(ARGV[3]) or 0
if reserved > 0 and score ~= reserved then return 0 end
local free = clock[1] * 1000000 + clock[2] + (tonumber(ARGV[2]) or 0) * 1000
-- Only a cooldown ends on half a microsecond. An agent that returns the member after it has lost it does not shorten that.
if reserved == 0 and ARGV[2] ~= '0' then free = free + 0.5 end
if score % 1 ~= 0 and score > free then return 0 end
redis.call('ZADD', KEYS[1], string.format('%.1f', free), ARGV[1])
return 1
