"""Training: the step, the averaged weights, the run, its checkpoints and its log."""
