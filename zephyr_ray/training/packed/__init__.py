"""Packed rows: several prompts with their completions in one row of tokens, each seeing its own."""
