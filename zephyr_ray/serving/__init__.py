"""Models on Ray Serve with vLLM: what is deployed, and its replicas."""
