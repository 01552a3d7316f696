"""The signals that ask a process to stop."""

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What ``kill``, Slurm and ``timeout`` send, a terminal on Ctrl-C, and one that is closed."""
