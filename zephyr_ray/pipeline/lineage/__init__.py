"""Lineage: which data, models, prompts, code and settings made a checkpoint, from the manifests of a run."""
