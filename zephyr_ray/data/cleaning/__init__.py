"""Filters: rows that repeat, that contain a benchmark's prompt, or that were trained on."""
