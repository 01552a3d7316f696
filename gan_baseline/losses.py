"""GFP-GAN's losses, as functions of images and features. The adversarial losses are in
:mod:`idm.diffusion.adversarial`.

The losses follow the authors' code (github.com/TencentARC/GFPGAN at 7552a77, ``gfpgan/models/gfpgan_model.py`` and
``options/train_gfpgan_v1.yml``). Images are in [-1, 1]. Except for the weights of the single feature maps, no weights
are applied here.
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
    """Return the L1 between the U-Net's image and the clean face at every scale, summed over the scales.

    Args:
        rgbs: the U-Net's images, coarsest first; each is twice as large as the one before, the last as large as ``hq``.
        hq: clean faces; they are halved bilinearly for each coarser scale.
    """
    loss = hq.new_zeros(())
    for rgb in reversed(rgbs):
        loss = loss + F.l1_loss(rgb, hq)
        hq = F.interpolate(hq, scale_factor=0.5, mode="bilinear", align_corners=False)
    return loss


def pyramid_weight(step: int, weight: float, until: int, after: float) -> float:
    """Return the weight of the pyramid loss in optimiser step ``step``, counted from 0: ``weight`` for the first
    ``until`` steps, then ``after``."""
    return weight if step < until else after


# ------------------------------------------------------------------------------------------------ features


def gram(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """Return the Gram matrices F F^T / (c h w), in float32."""
    flat = rearrange(features.float(), "b c h w -> b c (h w)")
    return einsum(flat, flat, "b i n, b j n -> b i j") / (flat.shape[1] * flat.shape[2])


def style_l1(ours: Maps, theirs: Maps, weights: Sequence[float], known: Known | None = None) -> Float[Tensor, ""]:
    """Return the style loss: the L1 between Gram matrices, weighted and summed over the feature maps.

    Args:
        known: which faces count; the others count as zero. None counts all of them.
    """
    pairs = zip(weights, ours, theirs, strict=True)
    return torch.stack([weight * mean_over_faces((gram(a) - gram(b)).abs(), known) for weight, a, b in pairs]).sum()
