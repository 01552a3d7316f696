"""Save the best model of a run, or one of its checkpoints, in the package.

``python experiments/publish_model.py RUN [--checkpoint 661] -o idm/restorers/pretrained/NAME``
"""

import argparse
from pathlib import Path

import torch

from idm.config.assembly.intrinsic import build_idm
from idm.config.load import load_config
from idm.config.schema import IDMConfig
from idm.restorers.saved import load_idm, save_idm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint", type=int, help="step of the checkpoint (default: the best of the run)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    chain = parser.add_mutually_exclusive_group()
    chain.add_argument("--num-steps", type=int, help="steps of the published chain (default: the configuration's)")
    chain.add_argument(
        "--levels", type=float, nargs="+", help="noise levels sigma of the published chain, falling, one for each step"
    )
    arguments = parser.parse_args()
    model = arguments.run
    if arguments.checkpoint is not None:
        model = arguments.run / "checkpoints" / f"step_{arguments.checkpoint:08d}" / "pipeline"
    denoiser = load_idm(model, torch.device("cpu"), torch.float32).denoiser
    idm = build_idm(load_config(arguments.run / "config.yaml", IDMConfig), denoiser)
    if arguments.num_steps is not None:
        idm.chain = idm.chain.changed(num_steps=arguments.num_steps)
    if arguments.levels is not None:
        levels = tuple(arguments.levels)
        idm.chain = idm.chain.changed(num_steps=len(levels), spacing="levels", levels=levels)
    idm.denoiser.type(torch.float16)  # half the size; the rounding error is far below the sampler's noise
    save_idm(idm, arguments.output)


if __name__ == "__main__":
    main()
