"""What is scored: stored samples, real cases, folders of label maps, and two evaluations against each other."""
