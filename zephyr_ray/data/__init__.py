"""One file per dataset, named for what it writes; `layouts`, `sources` and `sink` are what they share."""
