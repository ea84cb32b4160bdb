# In the log of a final header, with its data kept, on a chain that is listed if a list is given.
# Data, if wanted: {"chains": ["<64 hex digits>", …]}
package bpi

default accept := false

accept if count(reasons) == 0

reasons contains sprintf("%s: %s", [row, object.get(input.rows, row, "missing")]) if {
	some row in ["inclusion", "finality", "availability"]
	not input.rows[row] == "PASS"
}

reasons contains sprintf("chain %s is not on the list", [input.final.chain]) if {
	data.chains
	not listed(input.final.chain)
}

listed(chain) if chain in data.chains
