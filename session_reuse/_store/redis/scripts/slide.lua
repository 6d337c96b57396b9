-- Start the time to live of a session anew: not below what a save has asked for, not beyond the time at which it retires.
-- KEYS: session   ARGV: ttl ms   Reply: 1 | 0
local header = redis.pcall('GETRANGE', KEYS[1], 0, 175)
if type(header) ~= 'string' or string.sub(header, 1, 3) ~= 'SRS' or #header ~= 176 then return 0 end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local target = math.max(tonumber(ARGV[1]), (tonumber(string.sub(header, 171, 174), 16) or 0) * 60000)
local retires = tonumber(string.sub(header, 145, 158)) or 0
if retires > 0 then target = math.min(target, math.max(1, retires - now)) end
return redis.call('PEXPIRE', KEYS[1], string.format('%.0f', target))
