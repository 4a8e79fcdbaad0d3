"""Reads candidates -> judgments: ratings by language models, a reward model or a program. Plain Python on one row."""
