"""What a sample, target, loss, metric and output are, for each kind of problem."""
