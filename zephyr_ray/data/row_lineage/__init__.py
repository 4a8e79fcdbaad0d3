"""Lineage of one row of a run: its source, what models made of it, where it was dropped, and who learned from it."""
