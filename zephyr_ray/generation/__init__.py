"""Dialogues that a teacher makes: plain functions on one dialogue, and the actors that ask the teachers."""
