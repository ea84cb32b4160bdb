# Sealed by a host of one trust domain whose key the trust file gives to that host.
# Data: {"trustDomain": "bpi.local"}
package bpi

default accept := false

accept if count(reasons) == 0

reasons contains "the policy needs data: {\"trustDomain\": \"…\"}" if not data.trustDomain

reasons contains "the receipt names no host" if not input.receipt.host.id

reasons contains sprintf("host %s is not of %s", [id, data.trustDomain]) if {
	id := input.receipt.host.id
	not startswith(id, sprintf("spiffe://%s/", [data.trustDomain]))
}

reasons contains "the host is not shown to be the one that signed" if not input.rows.identity == "PASS"
