"""IDM: iterative diffusion models for blind face restoration (Zhao et al., ICCV 2023)."""

__version__ = "0.1.0"
