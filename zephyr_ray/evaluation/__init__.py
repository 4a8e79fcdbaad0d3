"""Evaluations of models, and confidence intervals of their results."""
