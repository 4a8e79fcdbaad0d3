"""The chat endpoint's gateway: what clients reach, and how it is started with its models."""
