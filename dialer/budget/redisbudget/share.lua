-- One call of one instance: it says of each account what it wants and has beyond its floor,
-- and is told what it may have. Redis 5.0 or later: the clock is read before anything is
-- written, which needs a script that is replicated by its effects.
--
-- KEYS[1]  a hash, all that is known of one NAT. It is one key so that it is there as a whole
--          or not at all: an account that had been lost alone would look like a new one.
-- ARGV     id, number of the call, newest version that the instance has seen,
--          ttl, hold (ms), pool (ports), '1' if the instance leaves, which state it was told
--          of and how far its clock must be by now, now and run ('': ask),
--          then for each account: name, wants, has
-- returns  version, instances living, instances counted, ms of learning left, which state,
--          its clock,
--          then for each account: grant, ports in quarantine
local key, id = KEYS[1], ARGV[1]
local call, seen = tonumber(ARGV[2]), tonumber(ARGV[3])
local ttl, hold, pool = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local leaves = ARGV[7] == '1'
local first, week = 12, 7 * 24 * 3600 * 1000

local function read(field)
  local value = redis.call('HGET', key, field)
  return value and cmsgpack.unpack(value)
end

local function write(field, value)
  redis.call('HSET', key, field, cmsgpack.pack(value))
end

-- What names this run of this server: another one may have lost something, or is a replica
-- that never had it. '': it does not say.
local function server()
  if ARGV[11] ~= '' then return ARGV[11] end
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
end

local function time()
  if ARGV[10] ~= '' then return tonumber(ARGV[10]) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local now, run = time(), server()
local fleet = read('fleet')
local lost = not fleet or fleet.version < seen or fleet.run ~= run
fleet = fleet or {born = now, last = now, clock = 0, version = 0}

-- Nothing is reckoned in the server's time but in this clock, which never goes back, and
-- never by more than one ttl from call to call however far the server's time has jumped.
-- Where nobody has called for longer, it stays behind, so that all who were cut off can say
-- what they still have. But while a fleet that calls now and then learns, the instance says how
-- far the clock must be, by its own. One that was not there before cannot: what was written by
-- a clock that stays behind must not end early because somebody else remembers. They are told
-- of another state.
local passed = now - fleet.last
fleet.clock = fleet.clock + math.max(0, math.min(passed, ttl))
if tonumber(ARGV[8]) == fleet.born and fleet.clock < (fleet.learn or 0) then
  fleet.clock = math.max(fleet.clock, tonumber(ARGV[9]))
elseif passed < 0 or passed > ttl then
  fleet.born = now
end
fleet.last, fleet.run = now, run
local clock = fleet.clock

-- Leases and quarantines may have been lost. Until the last of them would have been over,
-- nobody gets more than it has.
if lost then fleet.learn = clock + ttl + hold end
fleet.version = math.max(fleet.version, seen) + 1
local learning = math.max(0, fleet.learn - clock)

-- An expired lease is in quarantine until the NAT has forgotten its flows.
local expiry = leaves and clock or clock + ttl
local release = expiry + hold

local members = read('members') or {} -- id -> number of the call, expiry, release
local me = members[id]
if me and me[1] > call then return redis.error_reply('STALE a later call came first') end
local again = me and me[1] == call -- the client has repeated it: either answer may be believed
members[id] = {call, expiry, release}
local living, counted = 0, 0
for other, m in pairs(members) do
  if m[3] <= clock then
    members[other] = nil
  else
    counted = counted + 1
    if m[2] > clock then living = living + 1 end
  end
end

-- What this instance is due of what is left for all claims: the small ones in full, and equal
-- parts for those who want more (max-min fair). Of what does not divide, one goes to each of
-- the last by size and by name.
local function target(mine, ids, wants, left)
  local sorted = {mine}
  for i, w in ipairs(wants) do sorted[i + 1] = w end
  table.sort(sorted)
  for i, w in ipairs(sorted) do
    local n = #sorted - i + 1
    local part = math.floor(left / n)
    if w > part then
      if mine <= part then return mine end
      local later = 0
      for j, other in ipairs(wants) do
        if other > mine or other == mine and ids[j] > id then later = later + 1 end
      end
      return part + (later < left - part * n and 1 or 0)
    end
    left = left - w
  end
  return mine
end

-- A record is five entries of a flat array, which is read faster: id, lease, wants, expiry,
-- release.
local size = 5

-- Records that are over are dropped by those after them moving up.
local function prune(records)
  local n = 0
  for i = 1, #records, size do
    if records[i + 4] > clock then
      for j = 0, size - 1 do records[n + j + 1] = records[i + j] end
      n = n + size
    end
  end
  for i = #records, n + 1, -1 do records[i] = nil end
end

local function share(field, wants, has)
  wants = math.max(wants, has)
  local records = read(field) or {}
  local mine, others, quarantined, over = nil, 0, 0, false
  local rivals, rivalWants = {}, {}
  for i = 1, #records, size do
    local other, lease = records[i], records[i + 1]
    if other == id then
      mine = i
    elseif records[i + 4] <= clock then
      over = true
    elseif records[i + 3] <= clock then
      quarantined = quarantined + lease
    else
      others = others + lease
      rivals[#rivals + 1], rivalWants[#rivalWants + 1] = other, records[i + 2]
    end
  end

  local grant = has
  if learning == 0 and not leaves then
    local left = math.max(0, pool - quarantined)
    grant = math.min(target(wants, rivals, rivalWants, left), has + math.max(0, left - others - has))
  end

  -- What it has is recorded, whatever it was granted: it gives back as flows end.
  local lease = math.max(grant, has)
  if again and mine then lease = math.max(lease, records[mine + 1]) end
  mine = mine or #records + 1
  local ends = (wants > 0 or lease > 0) and release or clock
  records[mine], records[mine + 1], records[mine + 2] = id, lease, wants
  records[mine + 3], records[mine + 4] = expiry, ends
  if over or ends == clock then prune(records) end
  if #records > 0 then write(field, records) else redis.call('HDEL', key, field) end
  return grant, quarantined
end

-- Accounts that only lost instances have used are nobody's to clear away. Now and then a call
-- looks at a few.
local function sweep()
  local page = redis.call('HSCAN', key, fleet.cursor or '0', 'COUNT', 4)
  fleet.cursor = page[1]
  for i = 1, #page[2], 2 do
    local field, used = page[2][i], false
    if string.sub(field, 1, 2) == 'a:' then
      local records = cmsgpack.unpack(page[2][i + 1])
      for j = size, #records, size do used = used or records[j] > clock end
      if not used then redis.call('HDEL', key, field) end
    end
  end
end

local answer = {fleet.version, living, counted, learning, fleet.born, clock}
for i = first, #ARGV, 3 do
  local grant, quarantined = share('a:' .. ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]))
  answer[#answer + 1] = grant
  answer[#answer + 1] = quarantined
end
if fleet.version % 8 == 0 then sweep() end
write('members', members)
write('fleet', fleet)
redis.call('PEXPIRE', key, math.max(week, 2 * (ttl + hold)))
return answer
