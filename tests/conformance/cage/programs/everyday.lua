-- Lua: addresses, hash order, random numbers, clocks.
math.randomseed(os.time())
print(os.time(), os.clock(), math.random(1e9), {}, os.tmpname(), os.date())
local keys = {}
for _, key in pairs({ "alpha", "beta", "gamma", "delta" }) do keys[key] = true end
for key in pairs(keys) do io.write(key, " ") end
for line in io.popen("echo from a child; date +%N"):lines() do print(line) end
