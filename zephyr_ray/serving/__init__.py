"""Models on Ray Serve with vLLM: their configuration, replicas, and API keys."""
