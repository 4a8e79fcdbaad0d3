"""Sampling completions of prompts, from endpoints, deployments or models loaded into vLLM."""
