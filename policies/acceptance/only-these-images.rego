# Only images that are listed, each by the digest of its manifest.
# Data: {"images": ["<64 hex digits>", …]}
package bpi

default accept := false

accept if count(reasons) == 0

reasons contains "the receipt names no image" if not input.run.image

reasons contains sprintf("image %s is not on the list", [digest]) if {
	digest := input.run.image.digest.sha256
	not listed(digest)
}

listed(digest) if digest in data.images
