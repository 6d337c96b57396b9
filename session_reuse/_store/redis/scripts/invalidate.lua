-- Delete a session for everyone and leave a tombstone that refuses late saves of all who hold it. Counts once for each id.
-- KEYS: session, lease, tombstone, agents, quarantine
-- ARGV: tombstone ms, request id, created_at of the session that is meant (empty: whichever is there)
-- Reply: {existed (0|1), agents}
-- The tombstone is the server's time in µs, the request id and whether there was a session.
local function header_at(first, last)
  local found = redis.pcall('GETRANGE', KEYS[1], first, last)
  return type(found) == 'string' and found or ''
end
local function text_at(key, last)
  local found = redis.pcall('GETRANGE', key, 0, last)
  return type(found) == 'string' and found or ''
end
local tombstone = text_at(KEYS[3], -1)
if string.sub(tombstone, 22, -3) == ARGV[2] then return {tonumber(string.sub(tombstone, -1)), {}} end
local ours = header_at(0, 3) == 'SRS1'
if ours and ARGV[3] ~= '' and header_at(116, 129) ~= ARGV[3] then return {0, {}} end -- a newer login has replaced it
local now = redis.call('TIME')
local invalidated_at = now[1] * 1000000 + now[2]
local function above(text)
  invalidated_at = math.max(invalidated_at, (tonumber(text) or 0) + 1)
end
if ours then
  above(header_at(16, 35))
  above(header_at(36, 55))
end
above(text_at(KEYS[2], 19))
above(string.sub(tombstone, 1, 20))
local agents = redis.pcall('ZRANGE', KEYS[4], 0, -1)
if agents.err then agents = {} end
local existed = redis.call('DEL', KEYS[1])
redis.call('DEL', KEYS[2], KEYS[4], KEYS[5])
local text = string.format('%020.0f:%s:%d', invalidated_at, ARGV[2], existed)
redis.call('SET', KEYS[3], text, 'PX', ARGV[1])
return {existed, agents}
