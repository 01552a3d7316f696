"""The built-in face detector: its network, and how faces are read from the network's maps."""
