"""Equalised learning rates (Karras et al., arXiv 1710.10196, section 4.1; StyleGAN2), without a second network.

The authors trained and first published GFP-GAN and its StyleGAN2 in a form that stores numbers r and computes with
w = c r, where c is about 1 / sqrt(fan-in). Our networks store w, the "clean" form of v1.2 to v1.4. Both forms are the
same functions. Adam also takes the same steps if w learns at c times the rate and with eps / c: the gradient by r is
c times that by w, Adam divides this factor out, and a step of r moves w by c times as much.
"""

import re
from collections.abc import Mapping
from math import prod, sqrt

from torch import Tensor, nn

# Layers followed by sqrt(2) * leaky ReLU. The clean form folds sqrt(2) into weights, biases and noise strengths.
_ACTIVATED = re.compile(
    r"style_mlp\.|style_conv1\.(weight|bias)$|style_convs\.\d+\.(weight|bias)$"
    r"|conv_body_first\.|final_conv\.|\.conv1\.|condition_(scale|shift)\.\d+\.0\."
)
SLOW = 0.01  # relative learning rate of the network from z to w (StyleGAN, arXiv 1812.04948, appendix C)


def factor(name: str, shape: tuple[int, ...]) -> float:
    """Return c in w = c r for the parameter of GFP-GAN or of its StyleGAN2 with this name and shape."""
    c = 1.0
    if name.endswith(".weight") and len(shape) > 1 and "constant_input" not in name:
        c /= sqrt(max(1, prod(shape[2:] if "modulated_conv.weight" in name else shape[1:])))
    if _ACTIVATED.search(name):
        c *= sqrt(2)
    if "style_mlp." in name:
        c *= SLOW
    if ".skip." in name:  # from (h + skip) / sqrt(2), which for h cancels the gain of its activation
        c /= sqrt(2)
    return c


def factors(network: nn.Module) -> dict[str, float]:
    """Return :func:`factor` of every parameter by its name."""
    return {name: factor(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()}


def is_equalised(weights: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of the equalised form, as in GFPGANv1.pth and the authors' StyleGAN2."""
    return any(name.endswith(("conv_body_first.0.weight", "style_conv1.activate.bias")) for name in weights)


def fold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights of the equalised form to the clean form with ``smooth`` resampling.

    The equalised form stores upsampling convolutions as transposed ones, so their filters are turned by 180 degrees.
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
    """Return the clean form's name of a weight of the equalised form."""
    name = re.sub(r"style_mlp\.(\d+)\.", lambda found: f"style_mlp.{2 * int(found[1]) - 1}.", name)
    name = name.replace(".activate.bias", ".bias")
    name = re.sub(r"^(conv_body_first|final_conv)\.\d\.", r"\1.", name)
    return re.sub(r"^(conv_body_(?:down|up)\.\d+\.(?:conv1|conv2|skip))\.(?:\d|activation)\.", r"\1.", name)
