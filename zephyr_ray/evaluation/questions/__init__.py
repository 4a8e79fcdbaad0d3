"""Models that are asked a benchmark's questions, and a judge of their answers (docs/evaluation.md)."""
