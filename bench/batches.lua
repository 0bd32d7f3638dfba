-- wrk: 500 events a request. Arguments: file with API keys, one a line.
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

local keys, sent = {}, 0
local event = '{"externalRequestId":"@-%d","provider":"openai","model":"gpt-4o-mini","promptVersion":"v%d",'
  .. '"endpointTag":"chat.%d","inputTokens":%d,"outputTokens":133,"latencyMs":640,"status":"success",'
  .. '"userId":"user-%d","dataMode":"real","environment":"prod",'
  .. '"metadata":{"operation":"chat.completions.create","tenantId":"acme","feature":"support","sdkLanguage":"lua"}}'

function init(arguments)
  for key in io.lines(arguments[1]) do keys[#keys + 1] = key end
  math.randomseed(os.time() + id)
  run = string.format("%x%x", math.random(2 ^ 30), os.time())
  local events = {}
  for number = 1, 500 do
    events[number] = string.format(event, number, number % 3, number % 7, 400 + number, number % 50)
  end
  template = '{"events":[' .. table.concat(events, ",") .. "]}"
end

function request()
  sent = sent + 1
  local headers = { ["X-API-Key"] = keys[sent % #keys + 1], ["Content-Type"] = "application/json" }
  local body = string.gsub(template, "@", run .. "-" .. id .. "-" .. sent)
  return wrk.format("POST", "/v1/ingest/llm-requests", headers, body)
end
