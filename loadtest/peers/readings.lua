-- Readings for wrk, the same for every server: each device sends once a round, in a random order that is fixed for a
-- run. Each is unique, and dated when its round begins.
--
--   wrk -t THREADS … -s readings.lua URL -- DEVICES READINGS PIPELINED THREADS
--
-- READINGS of a request are one JSON object, or an array if there are several. PIPELINED requests are sent at once.
-- Prints at the end: RESULT answers refused broken microseconds p50 p99 (the latter two in microseconds).
local ffi = require("ffi")
ffi.cdef("int gettimeofday(int64_t time[2], void *zone);")
local clock = ffi.new("int64_t[2]")
local count = 0

function setup(thread)
  thread:set("number", count)
  count = count + 1
end

function init(args)
  local devices, readings, threads = tonumber(args[1]), tonumber(args[2]), tonumber(args[4])
  pipelined = tonumber(args[3])
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  -- This thread's devices: what is before the time in each.
  local lines = {}
  for device = number, devices - 1, threads do
    lines[#lines + 1] = string.format(
      '{"meterId":"PEER-M-%07d","kwhConsumedAc":0.0%05d,"voltage":%d.5,"timestamp":"',
      device, device * 7919 % 100000, 220 + device % 20)
  end
  math.randomseed(number + 1)
  for at = #lines, 2, -1 do
    local other = math.random(at)
    lines[at], lines[other] = lines[other], lines[at]
  end
  blocks = {}
  for first = 1, #lines - readings + 1, readings do
    local block = {}
    for at = first, first + readings - 1 do
      block[#block + 1] = lines[at]
    end
    if readings > 1 then
      block[1] = "[" .. block[1]
    end
    blocks[#blocks + 1] = block
  end
  bracket = readings > 1 and "]" or ""
  last_ms = 0
  next_round()
end

local function now_ms()
  ffi.C.gettimeofday(clock, nil)
  return tonumber(clock[0]) * 1000 + math.floor(tonumber(clock[1]) / 1000)
end

function next_round()
  -- No device has two readings of one time.
  last_ms = math.max(now_ms(), last_ms + 1)
  local stamp = os.date("!%Y-%m-%dT%H:%M:%S", math.floor(last_ms / 1000))
  ending = string.format('%s.%03dZ"}', stamp, last_ms % 1000)
  between = ending .. ","
  at = 1
end

function body()
  if at > #blocks then
    next_round()
  end
  local block = blocks[at]
  at = at + 1
  return table.concat(block, between) .. ending .. bracket
end

function request()
  if pipelined == 1 then
    return wrk.format(nil, nil, nil, body())
  end
  local requests = {}
  for n = 1, pipelined do
    requests[n] = wrk.format(nil, nil, nil, body())
  end
  return table.concat(requests)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    "RESULT %d %d %d %d %d %d\n",
    summary.requests, errors.status, errors.connect + errors.read + errors.write,
    summary.duration, latency:percentile(50), latency:percentile(99)))
end
