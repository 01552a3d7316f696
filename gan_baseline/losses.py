"""What GFP-GAN is trained with, as functions of images and features; the adversarial losses are
in :mod:`idm.diffusion.adversarial`.

The forms are those of the authors' code (github.com/TencentARC/GFPGAN at 7552a77, ``gfpgan/models/gfpgan_model.py``
and ``options/train_gfpgan_v1.yml``). Images are in [-1, 1]. Weights are not applied here, with two exceptions that
belong to the form: those of feature maps.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from idm.diffusion.adversarial import Known, mean_over_faces

Maps = Sequence[Float[Tensor, "b _ _ _"]]

# ------------------------------------------------------------------------------------------ reconstruction


def pyramid_l1(rgbs: Maps, hq: Float[Tensor, "b 3 s s"]) -> Float[Tensor, ""]:
    """L1 between the U-Net's image of every scale and the clean face halved again and again, bilinear; their sum.

    Args:
        rgbs: the U-Net's images, coarsest first; the last has the size of ``hq``.
    """
    loss = hq.new_zeros(())
    for rgb in reversed(rgbs):
        loss = loss + F.l1_loss(rgb, hq)
        hq = F.interpolate(hq, scale_factor=0.5, mode="bilinear", align_corners=False)
    return loss


def pyramid_weight(step: int, weight: float, until: int, after: float) -> float:
    """The weight of the pyramid loss in optimiser step ``step`` (from 0): ``weight`` for the first ``until`` steps."""
    return weight if step < until else after


# ------------------------------------------------------------------------------------------------ features


def gram(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """F F^T / (c h w), in float32."""
    flat = rearrange(features.float(), "b c h w -> b c (h w)")
    return einsum(flat, flat, "b i n, b j n -> b i j") / (flat.shape[1] * flat.shape[2])


def style_l1(ours: Maps, theirs: Maps, weights: Sequence[float], known: Known | None = None) -> Float[Tensor, ""]:
    """Style loss: weighted sum over feature maps of the L1 between their Gram matrices."""
    pairs = zip(weights, ours, theirs, strict=True)
    return torch.stack([weight * mean_over_faces((gram(a) - gram(b)).abs(), known) for weight, a, b in pairs]).sum()
