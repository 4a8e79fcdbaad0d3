"""The embedded world: instructions whose right answers a program can check, and a model small enough for a CPU."""
