"""Leaving out rows that repeat, that hold a benchmark's prompt, or that were trained on."""
