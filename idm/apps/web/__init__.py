"""The web page: ``idm app``."""
