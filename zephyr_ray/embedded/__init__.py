"""The embedded world: small tasks whose answers a program can check, and a model small enough for a CPU.

It is a plug-in: a recipe names its sources, model, judge and evaluation by import path, like a user's own functions.
"""
