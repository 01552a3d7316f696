"""Metrics, and the evaluation and comparison of restorers."""
