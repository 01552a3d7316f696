"""Training data: sources of aligned faces, and pairs of clean and degraded faces made from them."""
