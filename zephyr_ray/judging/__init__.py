"""Judging candidates with language models, a reward model or a user function. Mostly plain Python on one row."""
