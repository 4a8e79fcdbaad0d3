"""Aligned chat models without human labels, the Zephyr way (arXiv 2310.16944), on Ray."""

__version__ = "0.1.0"
