-- wrk: one signed message a request, each once. Arguments: file with a signature, a space and a body in each line.
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

local lines, sent = {}, 0

function init(arguments)
  local number = 0
  for line in io.lines(arguments[1]) do
    if number % 2 == id then lines[#lines + 1] = line end
    number = number + 1
  end
end

function request()
  sent = sent + 1
  local line = lines[(sent - 1) % #lines + 1]
  local headers = { ["X-Signature"] = line:sub(1, 64), ["Content-Type"] = "application/json" }
  return wrk.format("POST", "/v1/webhooks/lemon-squeezy", headers, line:sub(66))
end
