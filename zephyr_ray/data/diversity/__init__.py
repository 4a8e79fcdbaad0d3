"""How different from one another dialogues are that teachers make: measures, and their report."""
