-- Raise or lower the error score of the session that was used, not of one that has replaced it.
-- KEYS: session   ARGV: created_at, epoch, score change   Reply: score, or -1 when it is another session
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then return -1 end
local head = redis.call('GETRANGE', KEYS[1], 0, 175)
if string.sub(head, 1, 4) ~= 'SRS1' then return -1 end
if string.sub(head, 117, 130) ~= ARGV[1] or string.sub(head, 17, 36) ~= ARGV[2] then return -1 end
local score = math.min(9999, math.max(0, (tonumber(string.sub(head, 167, 170)) or 0) + tonumber(ARGV[3])))
redis.call('SETRANGE', KEYS[1], 166, string.format('%04d', score))
return score
