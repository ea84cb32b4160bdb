# A run that anybody can do again: profile strict, level D3, nothing left uncontrolled, nobody entered.
package bpi

default accept := false

accept if count(reasons) == 0

assurance := input.receipt.assurance

reasons contains "the receipt cannot be read" if not input.receipt

reasons contains sprintf("profile %v, not strict", [object.get(input, ["run", "cage", "profile"], "unknown")]) if not input.run.cage.profile == "strict"

reasons contains sprintf("level %v, not D3", [object.get(input, ["receipt", "assurance", "level"], "unknown")]) if not assurance.level == "D3"

reasons contains sprintf("nothing controlled %s", [source.name]) if {
	some source in assurance.sources
	source.status == "uncontrolled"
}

reasons contains "somebody entered the container while it ran" if count(assurance.execs) > 0
