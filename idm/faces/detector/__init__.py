"""The face detector that comes with the package: its network, and how faces are read from the network's maps."""
