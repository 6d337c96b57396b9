-- Reserve the member of a pool that is free for longest, for the waiter that waits longest. Of the free members each goes to
-- one of the first waiters, so none is overtaken. A reservation is a hint: the lease of the session decides who has it.
-- KEYS: pool (member -> server µs from which it is free), waiters (waiter -> arrival µs), seen (waiter -> last call µs)
-- ARGV: waiter, arrival µs (0: now), reservation µs, µs after which a waiter that does not call is gone,
-- µs of the longest pause that is no cooldown, then for each member that will not do: its name, the score that must still
-- stand, and µs for which it need not be looked at again (0: this waiter does not want it, others may)
-- Reply: {member or '', arrival, ms until a member may be free (-1: there is none), end of the reservation,
-- other free members and their scores}
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local waiter, arrival = ARGV[1], tonumber(ARGV[2]) or 0
if arrival <= 0 then arrival = now end

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now - (tonumber(ARGV[4]) or 0)))) do
  redis.call('ZREM', KEYS[2], gone)
  redis.call('ZREM', KEYS[3], gone)
end

local unwanted = {}
for i = 6, #ARGV, 3 do
  local member, pause = ARGV[i], tonumber(ARGV[i + 2])
  if pause == 0 then unwanted[member] = true end
  -- The holder may have given it back meanwhile: then it is free now.
  if tonumber(redis.call('ZSCORE', KEYS[1], member) or '') == tonumber(ARGV[i + 1]) then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + pause), member)
  end
end

local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'WITHSCORES', 'LIMIT', 0, 100)
local is_late = #found == 0
if is_late then
  -- A fail-over to a server whose clock is behind leaves members that are free in hours. Only a cooldown, on half a
  -- microsecond, may be so late. The others are looked at: the lease decides.
  found = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + tonumber(ARGV[5])), '+inf', 'WITHSCORES', 'LIMIT', 0, 100)
end
local free, wanted, others = 0, {}, {}
for i = 1, #found, 2 do
  if not is_late or tonumber(found[i + 1]) % 1 == 0 then
    free = free + 1
    if not unwanted[found[i]] then
      wanted[#wanted + 1] = found[i]
      if #wanted > 1 and #wanted <= 50 then
        others[#others + 1] = found[i]
        others[#others + 1] = found[i + 1]
      end
    end
  end
end

redis.call('ZADD', KEYS[2], string.format('%.0f', arrival), waiter)
if #wanted > 0 then
  for _, first in ipairs(redis.call('ZRANGE', KEYS[2], 0, #wanted - 1)) do
    if first == waiter then
      local until_then = string.format('%.0f', now + (tonumber(ARGV[3]) or 0))
      redis.call('ZADD', KEYS[1], until_then, wanted[1])
      redis.call('ZREM', KEYS[2], waiter)
      redis.call('ZREM', KEYS[3], waiter)
      return {wanted[1], string.format('%.0f', arrival), 0, until_then, others}
    end
  end
elseif free > 0 then -- it keeps no later waiter from what it does not want, and calls again with its arrival
  redis.call('ZREM', KEYS[2], waiter)
  redis.call('ZREM', KEYS[3], waiter)
  return {'', string.format('%.0f', arrival), 1000, '0', {}}
end

redis.call('ZADD', KEYS[3], string.format('%.0f', now), waiter)
redis.call('PEXPIRE', KEYS[2], 60000)
redis.call('PEXPIRE', KEYS[3], 60000)
local soonest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
local left = soonest and math.max(0, math.ceil((tonumber(soonest) - now) / 1000)) or -1
return {'', string.format('%.0f', arrival), left, '0', {}}
