"""Tokenized rows -> trained weights: one Ray Train worker loop, TRL's trainers, DeepSpeed's shards."""
