"""One file per dataset, named for what it writes; `io`, `formats` and `cleaning` are what they share."""
