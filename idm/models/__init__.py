"""The denoiser and the critics."""
