# It ended with status 0, was refused nothing, and never left the deterministic path.
package bpi

default accept := false

accept if count(reasons) == 0

reasons contains "the receipt cannot be read" if not input.run

reasons contains "it did not exit with status 0" if not input.run.result.exitCode == 0

reasons contains sprintf("signal %d ended it", [input.run.result.signal]) if input.run.result.signal

reasons contains sprintf("%s was refused", [call.syscall]) if some call in input.run.denied

reasons contains sprintf("escape: %s", [escape]) if some escape in input.receipt.assurance.escapes
