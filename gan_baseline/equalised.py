"""Equalised learning rates (Karras et al., arXiv 1710.10196, section 4.1; StyleGAN2), without a second network.

The authors trained and first published GFP-GAN and its StyleGAN2 in a form that stores numbers r and computes with
w = c r, c being about 1 / sqrt(fan-in). Our networks store w, the "clean" form of v1.2 to v1.4. The two are the same
functions, and Adam's steps are the same too, if w learns at c times the rate: Adam divides a gradient by its size, so
c dw/dr cancels there and remains before the step (its eps has to be divided by c).
"""

import re
from collections.abc import Mapping
from math import prod, sqrt

from torch import Tensor, nn

# Followed by sqrt(2) * leaky ReLU, through which sqrt(2) passes into weights, biases and noise strengths.
_ACTIVATED = re.compile(
    r"style_mlp\.|style_conv1\.(weight|bias)$|style_convs\.\d+\.(weight|bias)$"
    r"|conv_body_first\.|final_conv\.|\.conv1\.|condition_(scale|shift)\.\d+\.0\."
)
SLOW = 0.01  # rate of the network from z to w (StyleGAN, arXiv 1812.04948, appendix C)


def factor(name: str, shape: tuple[int, ...]) -> float:
    """c in w = c r, for the parameter of this name and shape of GFP-GAN or of its StyleGAN2."""
    c = 1.0
    if name.endswith(".weight") and len(shape) > 1 and "constant_input" not in name:
        c /= sqrt(max(1, prod(shape[2:] if "modulated_conv.weight" in name else shape[1:])))
    if _ACTIVATED.search(name):
        c *= sqrt(2)
    if "style_mlp." in name:
        c *= SLOW
    if ".skip." in name:  # (h + skip) / sqrt(2): for h it cancels the gain of its activation
        c /= sqrt(2)
    return c


def factors(network: nn.Module) -> dict[str, float]:
    """:func:`factor` of every parameter."""
    return {name: factor(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()}


def is_equalised(weights: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the equalised form: GFPGANv1.pth, or the StyleGAN2 it began with."""
    return any(name.endswith(("conv_body_first.0.weight", "style_conv1.activate.bias")) for name in weights)


def fold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the equalised form as those of the clean one with ``smooth`` resampling.

    Upsampling convolutions are stored for a transposed convolution, so their filters are turned by 180 degrees.
    """
    folded = {}
    for stored, weight in weights.items():
        name = clean_name(stored)
        weight = weight.float()
        if name.endswith(".bias") and "style_conv" in name and weight.ndim == 1 and ".modulation." not in name:
            weight = weight[None, :, None, None]
        if re.search(r"style_convs\.\d*[02468]\.modulated_conv\.weight$", name) and weight.ndim == 5:
            weight = weight.flip(-1, -2)
        folded[name] = factor(name, tuple(weight.shape)) * weight
    return folded


def clean_name(name: str) -> str:
    """The clean form's name of a weight of the equalised form."""
    name = re.sub(r"style_mlp\.(\d+)\.", lambda found: f"style_mlp.{2 * int(found[1]) - 1}.", name)
    name = name.replace(".activate.bias", ".bias")
    name = re.sub(r"^(conv_body_first|final_conv)\.\d\.", r"\1.", name)
    return re.sub(r"^(conv_body_(?:down|up)\.\d+\.(?:conv1|conv2|skip))\.(?:\d|activation)\.", r"\1.", name)
