"""Choosing some of the dialogues that are left after cleaning."""
