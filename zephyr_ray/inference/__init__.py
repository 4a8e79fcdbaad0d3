"""Reads prompts -> answers, from models behind servers or loaded into vLLM."""
