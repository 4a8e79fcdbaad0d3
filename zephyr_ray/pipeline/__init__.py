"""Stages as values, the artifacts of a run, and the runner that brings a list of stages up to date."""
