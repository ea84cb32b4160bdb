# Not older than a moment that the checker names: a policy has no clock.
# A final header's time counts, which a quorum of validators has agreed to; the host's own word does not.
# Data: {"notBeforeMs": 1767225600000}   (milliseconds since 1970: $(date -d '7 days ago' +%s)000)
package bpi

default accept := false

accept if count(reasons) == 0

reasons contains "the policy needs data: {\"notBeforeMs\": …}" if not data.notBeforeMs

reasons contains "no final header says when it was" if not input.final.timeMs

reasons contains sprintf("final at %d ms, and %d ms is the earliest", [input.final.timeMs, data.notBeforeMs]) if not input.final.timeMs >= data.notBeforeMs
