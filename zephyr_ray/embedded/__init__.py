"""The embedded world: a small task set whose answers a program can check, and a model small enough for a CPU.

A plug-in: a recipe names its sources, model, judge and evaluation by import path, as it would name a user's own.
"""
