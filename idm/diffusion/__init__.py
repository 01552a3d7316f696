"""The mathematics of diffusion: schedules, forward process, objective, samplers. Functions on tensors."""
