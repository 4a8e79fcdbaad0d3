"""The recipe: a frozen tree of values, a file per group of stages. Imports nothing heavy."""
