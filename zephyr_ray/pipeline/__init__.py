"""Stages as values, and what brings a list of them up to date."""
