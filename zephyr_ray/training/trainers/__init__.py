"""The trainers of the methods: what TRL's become on the plan's rows, packed and padded."""
