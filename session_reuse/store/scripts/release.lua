-- Give back a lease that is still ours.   KEYS: lease   ARGV: token (zeros when it never reached us), holder   Reply: 1 | 0
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then return 0 end
local lease = redis.call('GET', KEYS[1])
local mine = ARGV[1] .. ':' .. ARGV[2]
if ARGV[1] == '00000000000000000000' then mine = string.sub(lease, 1, 20) .. ':' .. ARGV[2] end
if lease ~= mine then return 0 end
return redis.call('DEL', KEYS[1])
