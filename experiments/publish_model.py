"""Save the best model of a run, or one of its checkpoints, in the package.

``python experiments/publish_model.py RUN [--checkpoint 661] -o idm/restorers/pretrained/NAME``

``--average-with`` averages the weights with those of the model from which the run started: between the two ends of a
fine-tuning often lies a better model than either (Wortsman et al., arXiv 2109.01903).
"""

import argparse
from pathlib import Path

import torch

from idm.config.assembly.intrinsic import build_idm, initial_weights
from idm.config.load import load_config
from idm.config.schema import IDMConfig
from idm.restorers.saved import load_idm, save_idm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint", type=int, help="step of the checkpoint (default: the best of the run)")
    parser.add_argument("--average-with", type=Path, help="a model of the same architecture, or with fewer blocks")
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
    if arguments.average_with is not None:
        other = initial_weights(arguments.average_with, denoiser)
        weights = denoiser.state_dict()
        denoiser.load_state_dict({name: weights[name].lerp(other[name].float(), 0.5) for name in weights})
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
