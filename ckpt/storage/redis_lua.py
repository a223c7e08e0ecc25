"""The parts that the Lua scripts of a Redis store are made of; see `ckpt.storage.redis_scripts` for the layout.

A part defines what the parts behind it use, and nothing else: `OPENED` looks whether the store is whole, `DATED` at
which epoch of which run of the server, `HELD` whether the caller still has it to itself, `ONCE` whether a batch was
applied before, `FIND` looks records up, `BUCKETS` index entries, `FRAME` takes a frame apart, `CHAINS` looks up frames
with those before them, and `WRITING` decides and computes all changes before it writes the first.

Strings are never compared with `<` in here: that would ask the server's locale.
"""

from __future__ import annotations

FORMAT = 1
"""The newest layout this version reads and the one it writes."""

KEY_NAMES = ("meta", "records", "frames", "index", "lock", "done")

LEASE_MS = 10_000
"""How long a holder of the lock may be silent before others go on without it."""

DAMAGED = "ckpt-damaged:<"
"""Stands before a key's name, and a `>`, in the error by which a script ends that cannot read what the key holds."""

KEYS = (
    """
local META, RECORDS, FRAMES, INDEX, LOCK, DONE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local call = redis.call
local function damaged(key) error('@MARK@' .. key .. '>', 0) end
"""
).replace("@MARK@", DAMAGED)

# ARGV[1] is the id of the store that the caller opened, ARGV[2] its token when it has the store to itself.
OPENED = (
    KEYS
    + """
local meta = call('HMGET', META, 'id', 'epoch', 'next', 'records', 'frames', 'objects', 'buckets', 'used',
    'record_bytes', 'frame_bytes', 'format')
if meta[1] ~= ARGV[1] then return {'gone'} end
if meta[11] ~= '@FORMAT@' then return {'format', meta[11]} end
for n = 2, 10 do
    -- What `tonumber` reads beside digits, such as 1e400, and what it rounds, is no count of ours.
    local digits = meta[n] and #meta[n] <= 15 and string.match(meta[n], '^%d+$')
    if not digits then return {'lost', 'meta'} end
    meta[n] = tonumber(digits)
end
local epoch, upcoming, records, frames, objects = meta[2], meta[3], meta[4], meta[5], meta[6]
local buckets, used, record_bytes, frame_bytes = meta[7], meta[8], meta[9], meta[10]
-- By other numbers a script would walk through buckets that are not there, or make them, while all others wait.
-- 2 ^ 28 buckets, 16 entries in each, are more than a server has memory for.
if buckets < 1 or buckets > 2 ^ 28 or objects > buckets * 16 or used > buckets then return {'lost', 'meta'} end
-- Among members of other scores no range of bytes finds those of score 0, as if they were not there.
if call('ZCOUNT', RECORDS, 0, 0) ~= records then
    if call('ZCARD', RECORDS) ~= records then return {'lost', 'records'} end
    return {'scored', RECORDS}
end
if call('XLEN', FRAMES) ~= frames then return {'lost', 'frames'} end
if call('HLEN', INDEX) ~= used then return {'lost', 'index'} end
"""
).replace("@FORMAT@", str(FORMAT))

# A server that was started again may have come back without the last that it was told: its run has a number of its own.
# So may one that was a replica meanwhile, and runs on: what a replica follows, or goes on with when it takes over, has
# another. Half of each will do: that two are alike by chance is no more likely than one in four billion.
DATED = """
local function named(section, field)
    return string.sub((string.match(call('INFO', section), field .. ':(%x+)') or '') .. '00000000', 1, 8)
end
local dated = string.format('%.0f:', epoch)
    .. string.lower(named('server', 'run_id') .. named('replication', 'master_replid'))
"""

HELD = f"""
if ARGV[2] ~= '' then
    if call('GET', LOCK) ~= ARGV[2] then return {{'unlocked'}} end
    call('PEXPIRE', LOCK, {LEASE_MS})
end
"""

READING = OPENED + HELD

# ARGV[3] names the sender, ARGV[4] is the number of its batch.
ONCE = """
local sender, turn = ARGV[3], ARGV[4]
local done = call('HGET', DONE, sender)
if done then
    local last, numbers = string.match(done, '^(%d+) %d+ ([%d,]*)$')
    if not last then damaged(DONE) end
    if last == turn then return {'ok', numbers} end
    -- Sent before a connection broke and read by the server only now: it was settled since.
    if tonumber(last) > tonumber(turn) then return {'stale'} end
end
"""

FIND = """
local function find(key)
    local member = call('ZRANGEBYLEX', RECORDS, '[' .. key, '+', 'LIMIT', 0, 1)[1]
    if member and string.sub(member, 1, #key) == key then return member end
    return false
end
local function value_of(key)
    local member = find(key)
    return member and string.sub(member, #key + 1)
end
"""

# `low` buckets have been there before the current round of splits; each of them was `width` prefixes wide.
BUCKETS = """
local low, width = 1, 4294967296
while low * 2 <= buckets do low, width = low * 2, width / 2 end
local loaded, existed = {}, {}
local function bounds(prefix)
    local wide = width
    if math.floor(prefix / width) < buckets - low then wide = width / 2 end
    local start = prefix - prefix % wide
    return start, start + wide
end
local function bucket(start)
    local name = struct.pack('>I4', start)
    if not loaded[name] then
        local entries = call('HGET', INDEX, name)
        if entries and #entries % 24 ~= 0 then damaged(INDEX) end
        existed[name] = entries and 1 or 0
        loaded[name] = entries or ''
    end
    return name, loaded[name]
end
local function seek(entries, a, b, c, first)
    local last = #entries / 24
    while first < last do
        local middle = math.floor((first + last) / 2)
        local x, y, z = struct.unpack('>I6I6I5', entries, middle * 24 + 1)
        if x < a or (x == a and (y < b or (y == b and z < c))) then first = middle + 1 else last = middle end
    end
    return first
end
local function each(sought, visit, leave)
    local at = 1
    while at <= #sought do
        local start, limit = bounds((struct.unpack('>I4', sought, at)))
        local name, entries = bucket(start)
        local first = 0
        while at <= #sought do
            local a, b, c = struct.unpack('>I6I6I5', sought, at)
            if math.floor(a / 65536) >= limit then break end
            first = seek(entries, a, b, c, first)
            local found = string.sub(entries, first * 24 + 1, first * 24 + 17) == string.sub(sought, at, at + 16)
            visit(entries, first, found, at)
            at = at + 24
        end
        if leave then leave(name, entries) end
    end
end
local function look(sought)
    local found = {}
    each(sought, function(entries, first, here)
        if here then found[#found + 1] = string.sub(entries, first * 24 + 1, first * 24 + 24) end
    end)
    return found
end
"""

FRAME = """
local function frame_of(entry)
    local number, fields = string.match(entry[1], '^(%d+)-0$'), entry[2]
    if not number or #fields ~= 4 or #fields[2] > 15 or not string.match(fields[2], '^%d+$') then damaged(FRAMES) end
    return number, fields[2], fields[4]
end
"""

# The frames named in `known`, which their user fills in, are where going back stops.
CHAINS = (
    FRAME
    + """
local known, seen = {}, {}
local function chain(number, reply)
    while number ~= '0' and not seen[number] do
        seen[number] = true
        local entry = call('XRANGE', FRAMES, number .. '-0', number .. '-0')[1]
        if not entry then break end
        local _, previous, data = frame_of(entry)
        reply[#reply + 1] = number
        reply[#reply + 1] = previous
        reply[#reply + 1] = data
        number = previous
        if known[number] then break end
    end
end
"""
)

WRITING = (
    FIND
    + BUCKETS
    + """
local dirty = {}
local function merge(fresh, number, mode)
    local pieces, from = {}, 0
    each(fresh, function(entries, first, found, at)
        if (mode == 'keep' and found) or (mode == 'remove' and not found) then return end
        pieces[#pieces + 1] = string.sub(entries, from * 24 + 1, first * 24)
        if mode == 'remove' then
            objects = objects - 1
        else
            if not found then objects = objects + 1 end
            if number then
                pieces[#pieces + 1] = string.sub(fresh, at, at + 16) .. number .. string.sub(fresh, at + 22, at + 23)
            else
                pieces[#pieces + 1] = string.sub(fresh, at, at + 23)
            end
        end
        from = found and first + 1 or first
    end, function(name, entries)
        if #pieces > 0 then
            pieces[#pieces + 1] = string.sub(entries, from * 24 + 1)
            loaded[name] = table.concat(pieces)
            dirty[name] = true
        end
        pieces, from = {}, 0
    end)
end
local function grow()
    while objects > buckets * 16 do
        local start = (buckets - low) * width
        local name, entries = bucket(start)
        local middle = start + width / 2
        local cut = seek(entries, middle * 65536, 0, 0, 0) * 24
        local other = struct.pack('>I4', middle)
        existed[other], loaded[other] = 0, string.sub(entries, cut + 1)
        if loaded[other] ~= '' then
            loaded[name] = string.sub(entries, 1, cut)
            dirty[name], dirty[other] = true, true
        end
        buckets = buckets + 1
        if buckets == low * 2 then low, width = buckets, width / 2 end
    end
end
local old, new, removed, added = {}, {}, 0, 0
local function change(key, value)
    local before = find(key)
    local after = value ~= '-' and key .. string.sub(value, 2)
    if before == after then return end
    if before then
        records, record_bytes = records - 1, record_bytes - #before
        old[#old + 1] = before
        if not after then removed = removed + 1 end
    end
    if after then
        records, record_bytes = records + 1, record_bytes + #after
        new[#new + 1] = after
    end
end
local laid = {}
local function lay(number, previous, data)
    frames, frame_bytes = frames + 1, frame_bytes + #data
    laid[#laid + 1] = {string.format('%.0f-0', number), previous, data}
end
local function account()
    call('HSET', META, 'epoch', epoch, 'next', upcoming, 'records', records, 'frames', frames, 'objects', objects,
        'buckets', buckets, 'used', used, 'record_bytes', record_bytes, 'frame_bytes', frame_bytes)
end
local function write(numbers)
    grow()
    for name in pairs(dirty) do used = used + (loaded[name] ~= '' and 1 or 0) - existed[name] end
    -- A full server refuses what adds, when it comes first, and lets a removal through, which has to come first then.
    local adds = #new > 0 or #laid > 0
    if adds then account() end
    for n = 1, #old do call('ZREM', RECORDS, old[n]) end
    for n = 1, #new do call('ZADD', RECORDS, 0, new[n]) end
    for n = 1, #laid do call('XADD', FRAMES, laid[n][1], 'p', laid[n][2], 'd', laid[n][3]) end
    for name in pairs(dirty) do
        if loaded[name] ~= '' then call('HSET', INDEX, name, loaded[name]) else call('HDEL', INDEX, name) end
    end
    if not adds then account() end
    local now = call('TIME')[1]
    local stamp = turn .. ' ' .. now .. ' ' .. numbers
    if call('HSET', DONE, sender, stamp) == 1 and call('HLEN', DONE) > 1000 then
        local some = call('HRANDFIELD', DONE, 20, 'WITHVALUES')
        for n = 1, #some, 2 do
            local ended = string.match(some[n + 1], '^%d+ (%d+)')
            if not ended or now - ended > 3600 then call('HDEL', DONE, some[n]) end
        end
    end
end
"""
)
