"""A judge's raw reply as ratings and reasons."""
