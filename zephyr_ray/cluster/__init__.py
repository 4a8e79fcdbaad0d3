"""Ray clusters: connecting to one or starting one, what a stage asks of it, its workers and the storage they share."""
