-- Prolong a lease that is still ours.   KEYS: lease   ARGV: token, holder, lease ms   Reply: 1 | 0
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('GET', KEYS[1]) ~= ARGV[1] .. ':' .. ARGV[2] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
