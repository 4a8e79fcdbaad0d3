"""Raw rows of the known layouts as messages."""
