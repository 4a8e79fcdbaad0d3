"""Measures models: what they answer, how often it is right, and how sure one can be of the difference."""
