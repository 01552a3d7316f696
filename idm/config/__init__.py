"""Settings: their schema, reading them, and assembling a run from them."""
