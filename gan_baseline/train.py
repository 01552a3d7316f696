"""Train GFP-GAN: ``accelerate launch -m gan_baseline.train --config configs/gan_faces64.yaml [section.key=value]``."""

from typing import TYPE_CHECKING

from gan_baseline.schema import GANConfig
from idm.training.launch import launch

if TYPE_CHECKING:
    from idm.training.loop import Run


def build(config: GANConfig) -> "Run":
    """Build the run of a configuration; PyTorch is imported only then."""
    from gan_baseline.build import build_gan

    return build_gan(config)


if __name__ == "__main__":
    launch("Train GFP-GAN. The same command with the same output_dir resumes a run.", GANConfig, build)
