"""The Lua scripts of a Redis store: what the server does in one step, and how the store lies in its keys.

Six keys, all in one hash slot:

- `meta`, a hash: what the store is (`kind`, `format`, `id`), its epoch, the next frame's number, and counts and
  sizes of all that is in the other keys;
- `records`, a sorted set whose scores are all 0, so that it is ordered by bytes (with any other it is not, and
  nothing is found in it). A member is a record's escaped key, two zero bytes, and its value. One member, in place of
  a key here and a field in a hash, saves 100 bytes for each record;
- `frames`, a stream: the frame's number is the entry's id. Entries are packed into blocks of 4 KB, which saves
  40 bytes and more for each frame against a hash;
- `index`, a hash of buckets. A bucket holds sorted entries of 24 bytes: the object's key, padded to 16 bytes, its
  length, the frame's number (5 bytes), and the position (2). A bucket's name is the smallest 32 bit prefix that
  belongs in it. Buckets are split one after the other, in order, as objects are added, which keeps them at 16
  entries on average and the whole index ordered;
- `lock`, a string with an expiry: the token of whoever has the store to itself;
- `done`, a hash: for each sender the last batch it published, so that one sent again is not applied again.

Every script begins with the same look at `meta`: a store that was removed, replaced, or of which a key is gone or no
longer in order, is noticed before anything is believed or written. A script decides and computes first and writes
last; its first write is one that a full server refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1

from ckpt.storage.redis_lua import (
    BUCKETS,
    CHAINS,
    DATED,
    FIND,
    FRAME,
    HELD,
    KEYS,
    LEASE_MS,
    ONCE,
    OPENED,
    READING,
    WRITING,
)

SCANNED_BYTES_MAX = 8 << 20
"""Bytes of frames that one page of `SCAN_FRAMES` looks at, however many frames were asked for."""

BUCKETS_AT_ONCE = 4096
"""Buckets that one page of `SCAN_INDEX` walks through, most of which may be empty after a large removal."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest by which the server remembers it."""

    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.source.encode(), usedforsecurity=False).hexdigest())


OPEN = Script(
    KEYS
    + """
local kinds, there = {'hash', 'zset', 'stream', 'hash', 'string', 'hash'}, false
for n = 1, 6 do
    local kind = call('TYPE', KEYS[n]).ok
    if kind ~= 'none' and kind ~= kinds[n] then return {'foreign', KEYS[n]} end
    there = there or (n < 5 and kind ~= 'none')
end
local meta = call('HMGET', META, 'kind', 'format', 'id')
if meta[1] == 'ckpt' then return {'ok', meta[2], meta[3]} end
if call('EXISTS', META) == 1 then return {'foreign', META} end
if there then return {'lost', 'meta'} end
if ARGV[1] == '' then return {'none'} end
call('HSET', META, 'kind', 'ckpt', 'format', ARGV[2], 'id', ARGV[1], 'epoch', 1, 'next', 1, 'records', 0, 'frames', 0,
    'objects', 0, 'buckets', 1, 'used', 0, 'record_bytes', 0, 'frame_bytes', 0)
call('DEL', LOCK, DONE)
return {'ok', ARGV[2], ARGV[1]}
"""
)
"""Find the store, or create it under the id ARGV[1] unless that is empty."""

EPOCH = Script(READING + DATED + "return {'ok', dated}")

READ = Script(
    READING
    + FIND
    + """
local reply = {'ok'}
for n = 3, #ARGV do reply[n - 1] = value_of(ARGV[n]) end
return reply
"""
)

VIEW = Script(
    READING
    + FIND
    + """
local count = tonumber(ARGV[4])
local values, reply = {}, {'ok'}
for n = 1, count do values[n] = value_of(ARGV[4 + n]) end
reply[2] = values
for n = 5 + count, #ARGV, 2 do
    reply[#reply + 1] = call('ZREVRANGEBYLEX', RECORDS, ARGV[n + 1], ARGV[n], 'LIMIT', 0, ARGV[3])
end
return reply
"""
)

SCAN = Script(READING + "return {'ok', call(ARGV[3], RECORDS, ARGV[4], ARGV[5], 'LIMIT', 0, ARGV[6])}")

LOCATE = Script(READING + BUCKETS + "return {'ok', table.concat(look(ARGV[3]))}")

LOAD = Script(
    READING
    + CHAINS
    + """
local count, reply = tonumber(ARGV[3]), {'ok'}
for n = 4 + count, #ARGV do known[ARGV[n]] = true end
for n = 4, 3 + count do chain(ARGV[n], reply) end
return reply
"""
)

FETCH = Script(
    READING
    + BUCKETS
    + CHAINS
    + """
for n = 4, #ARGV do known[ARGV[n]] = true end
local found = look(ARGV[3])
local reply = {'ok', table.concat(found)}
for n = 1, #found do
    local high, low = struct.unpack('>BI4', found[n], 18)
    chain(string.format('%.0f', high * 4294967296 + low), reply)
end
return reply
"""
)
"""The entries of the keys in ARGV[3], then the frames that they name, as `LOAD` returns them."""

SCAN_INDEX = Script(
    READING
    + BUCKETS
    + f"""
local sought, left, walked = ARGV[3], tonumber(ARGV[4]), 0
local a, b, c = struct.unpack('>I6I6I5', sought)
local start, limit = bounds(math.floor(a / 65536))
local pieces = {{}}
while left > 0 do
    if walked == {BUCKETS_AT_ONCE} then return {{'ok', table.concat(pieces), start}} end
    walked = walked + 1
    local _, entries = bucket(start)
    local first = seek(entries, a, b, c, 0)
    local piece = string.sub(entries, first * 24 + 1, (first + left) * 24)
    pieces[#pieces + 1] = piece
    left = left - #piece / 24
    if limit >= 4294967296 then break end
    start, limit = bounds(limit)
end
return {{'ok', table.concat(pieces), -1}}
"""
)
"""Entries from the padded key ARGV[3] on, at most ARGV[4] of them, and the prefix to go on from, or -1."""

SCAN_FRAMES = Script(
    READING
    + FRAME
    + f"""
local after, left, scanned, reply = ARGV[3], tonumber(ARGV[4]), 0, {{'ok', 1}}
while left > 0 and scanned < {SCANNED_BYTES_MAX} do
    local page = call('XRANGE', FRAMES, after .. '-1', '+', 'COUNT', math.min(left, 16))
    for n = 1, #page do
        local number, previous, data = frame_of(page[n])
        reply[#reply + 1] = number
        reply[#reply + 1] = previous
        reply[#reply + 1] = #data
        scanned = scanned + #data
        after = number
    end
    left = left - #page
    if #page == 0 then
        reply[2] = 0
        break
    end
end
return reply
"""
)
"""Numbers, previous numbers and sizes of frames behind ARGV[3]; first whether there may be more."""

USAGE = Script(READING + "return {'ok', frame_bytes, frames, record_bytes, records, objects, buckets}")

PUBLISH = Script(
    OPENED
    + DATED
    + ONCE
    + """
if call('EXISTS', LOCK) == 1 then return {'locked', call('PTTL', LOCK)} end
"""
    + WRITING
    + """
local at = 6
local function take()
    at = at + 1
    return ARGV[at - 1]
end
local current, differs = {'changed'}, false
for n = 1, tonumber(take()) do
    local key, wanted = take(), take()
    local value = value_of(key)
    current[n + 1] = value
    if wanted == '-' then
        differs = differs or value
    else
        differs = differs or not value or value ~= string.sub(wanted, 2)
    end
end
if differs then return current end
if ARGV[5] ~= '' and ARGV[5] ~= dated then return {'epoch', dated} end
for n = 1, tonumber(take()) do change(take(), take()) end
local numbers = {}
for n = 1, tonumber(take()) do
    local previous, optional, entries, data = take(), take(), take(), take()
    if optional == '1' and #look(entries) == #entries / 24 then
        numbers[n] = '0'
    else
        merge(entries, struct.pack('>I5', upcoming), 'keep')
        lay(upcoming, previous == '-1' and numbers[n - 1] or previous, data)
        numbers[n] = string.format('%.0f', upcoming)
        upcoming = upcoming + 1
    end
end
if removed > 0 then epoch = epoch + 1 end
numbers = table.concat(numbers, ',')
write(numbers)
return {'ok', numbers}
"""
)
"""Apply a batch, unless a condition fails or the store is locked."""

LOCK = Script(
    OPENED
    + DATED
    + f"""
local holder = call('GET', LOCK)
if holder == ARGV[2] then return {{'ok', dated, upcoming}} end
if holder then return {{'locked', call('PTTL', LOCK)}} end
call('PERSIST', META)
call('SET', LOCK, ARGV[2], 'PX', {LEASE_MS})
return {{'ok', dated, upcoming}}
"""
)
"""Take the lock for the token ARGV[2]. Begins with a write that a full server allows: collecting frees memory."""

UNLOCK = Script(
    KEYS
    + """
if call('GET', LOCK) == ARGV[2] then call('DEL', LOCK) end
return {'ok'}
"""
)

APPLY = Script(
    OPENED
    + ONCE
    + HELD
    + FRAME
    + WRITING
    + """
epoch, upcoming = tonumber(ARGV[5]), tonumber(ARGV[6])
local at = 9
local function take()
    at = at + 1
    return ARGV[at - 1]
end
merge(ARGV[7], nil, 'remove')
merge(ARGV[8], nil, 'replace')
for n = 1, tonumber(take()) do change(take(), take()) end
for n = 1, tonumber(take()) do lay(tonumber(take()), take(), take()) end
local dropped = {}
for n = 1, tonumber(take()) do
    local id = take() .. '-0'
    local entry = call('XRANGE', FRAMES, id, id)[1]
    if entry then
        local _, _, data = frame_of(entry)
        frames, frame_bytes = frames - 1, frame_bytes - #data
        dropped[#dropped + 1] = id
    end
end
for n = 1, #dropped do call('XDEL', FRAMES, dropped[n]) end
write('')
call('DEL', LOCK)
return {'ok'}
"""
)
"""Apply what a holder of the lock has gathered, and release the lock. A full server lets it through as well."""
