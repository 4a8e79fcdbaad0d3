"""The report of a run: what became of the rows, how training went, what it was good for, and what is suspicious."""
