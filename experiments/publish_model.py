"""Put a run's best model into the package.

``python experiments/publish_model.py RUN -o idm/restorers/pretrained/NAME``
"""

import argparse
from pathlib import Path

import torch

from idm.config.assembly.intrinsic import build_pipeline
from idm.config.load import load_config
from idm.config.schema import IDMConfig
from idm.models.unet import Denoiser
from idm.restorers.saved import find_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    denoiser = Denoiser.from_pretrained(find_model(arguments.run) / "denoiser")
    pipeline = build_pipeline(load_config(arguments.run / "config.yaml", IDMConfig), denoiser)
    pipeline.denoiser.type(torch.float16)  # half the size; what rounding costs lies far below the sampler's noise
    pipeline.save_pretrained(arguments.output, safe_serialization=True)


if __name__ == "__main__":
    main()
