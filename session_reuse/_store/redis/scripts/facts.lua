-- What a listing shows of one session: the header, the time to live, the last agent, the lease, the last probe. Changes nothing.
-- KEYS: session, agents, lease, liveness
-- Reply: {header, ttl ms, bytes, last agent, its unix ms, lease, lease ms, liveness, server time in µs}
local function text(reply)
  return type(reply) == 'string' and reply or ''
end

local clock = redis.call('TIME')
local size = redis.pcall('STRLEN', KEYS[1])
local agent = redis.pcall('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
if type(agent) ~= 'table' or agent.err then agent = {} end
return {
  text(redis.pcall('GETRANGE', KEYS[1], 0, 175)), redis.call('PTTL', KEYS[1]), type(size) == 'number' and size or 0,
  text(agent[1]), text(agent[2]), text(redis.pcall('GET', KEYS[3])), redis.call('PTTL', KEYS[3]),
  text(redis.pcall('GET', KEYS[4])), string.format('%020.0f', clock[1] * 1000000 + clock[2]),
}
