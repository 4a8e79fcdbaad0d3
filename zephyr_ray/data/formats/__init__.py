"""Conversion of raw rows in known layouts to messages."""
