"""The model card that is saved beside a pipeline's weights."""

from typing import TYPE_CHECKING

from idm.diffusion.chain import SCHEDULERS

if TYPE_CHECKING:
    from idm.restorers.idm import IDM

CARD = """---
library_name: diffusers
pipeline_tag: image-to-image
tags: [face-restoration, diffusion, idm]
---

# IDM for faces of {size} px

A conditional denoising diffusion model f_theta(x_d, x_t, gamma) that restores degraded faces of {size} x {size} pixels
(after Zhao et al., ICCV 2023, arXiv 2307.08996). {parameters:.1f} million parameters; it predicts {prediction}.
Sampler: {sampler}, {num_steps} steps, from {start_from}.

```python
from idm import IDMPipeline

pipeline = IDMPipeline.from_pretrained("...")  # this folder or repository
pipeline(face).images[0].save("restored.png")  # face: a PIL image, aligned as in FFHQ
```

**Trained on.** State here: which faces, on what terms; which degradations; how long. The run's `config.yaml` has it.

**Measured.** State here: on which held-out faces, by `idm evaluate`.

**Limits.** It invents what the input does not show. A restored face is not evidence of who somebody is or of what they
looked like.
"""

_PREDICTIONS = {"sample": "the clean face", "epsilon": "the noise", "v": "v"}


def model_card(model: "IDM") -> str:
    """A card with the facts that the model stores; its author adds data and measurements."""
    return CARD.format(
        size=model.image_size,
        parameters=sum(p.numel() for p in model.denoiser.parameters()) / 1e6,
        prediction=_PREDICTIONS[model.prediction],
        sampler=SCHEDULERS[model.chain.sampler][1].removesuffix("Scheduler"),
        num_steps=model.chain.num_steps,
        start_from="noise" if model.chain.start_from == "noise" else "the degraded face",
    )
