"""Restorers: the protocol, IDM as a pipeline, saved models, third-party networks, backends, export."""
