"""Scripts that run in the environment of another package, which need not have this one."""
