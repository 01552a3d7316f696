"""Losses and gradients wait for no copy between the processor and a GPU."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch.utils._python_dispatch import TorchDispatchMode

from gan_baseline.adversary import Adam, ComponentAdversary, FaceAdversary
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.learner import AdversarialIteration, Weights
from idm.data.pairs import Batch
from idm.diffusion.schedule import log_sigma
from idm.faces.components import ComponentDiscriminators
from idm.faces.features import MobileFaceNetEmbedding, MobileFaceNetMaps
from idm.faces.mobilefacenet import MobileFaceNet
from idm.models.critics import PatchCritic, StyleGAN2Discriminator
from idm.models.unet import UNet
from idm.restorers.idm import IDM
from idm.training.adversarial import Adversary
from idm.training.learner import IntrinsicIteration, NoiseLevels, Optimisation

GPU = torch.device("meta")
"""A device whose tensors have no values, so that to wait for one is an error."""
MODULES = (
    *("idm.training.learner", "idm.diffusion.objective", "idm.diffusion.adversarial", "idm.faces.features"),
    *("idm.faces.components", "idm.models.critics", "gan_baseline.learner"),
)
"""Those that copy with ``on_device``."""
OPTIMISATION = Optimisation(10, 1e-3, 0, "constant", (0.9, 0.99), 0.0, 1.0, 0.5)


class WaitingCopies(TorchDispatchMode):
    """Collects copies between devices that are not asynchronous."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.entered = False

    def __enter__(self) -> "WaitingCopies":
        self.entered = True
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self.entered = False
        super().__exit__(*error)

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = function(*arguments, **keywords)
        if function.overloadpacket.__name__ in ("_to_copy", "copy_") and not keywords.get("non_blocking"):
            sources = [a for a in arguments if isinstance(a, torch.Tensor)]
            if any(source.device != result.device for source in sources):
                self.seen.append(f"{function} of {tuple(result.shape)}")
        return result


@pytest.fixture
def waiting(monkeypatch) -> Iterator[WaitingCopies]:
    """The copies that wait in a learner whose accelerator has the device ``GPU``."""
    copies = WaitingCopies()

    def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
        return values.to(device, non_blocking=True)

    def seen(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Numbers that a GPU gets from the processor are copied, unseen by a dispatch mode."""

        def made(*arguments: Any, **keywords: Any) -> torch.Tensor:
            values = make(*arguments, **keywords)
            if copies.entered and values.device == GPU:
                copies.seen.append(f"numbers of shape {tuple(values.shape)}")
            return values

        return made

    for module in MODULES:
        monkeypatch.setattr(f"{module}.on_device", on_device)
    monkeypatch.setattr(torch, "tensor", seen(torch.tensor))
    monkeypatch.setattr(torch.Tensor, "new_tensor", seen(torch.Tensor.new_tensor))
    monkeypatch.setattr(Accelerator, "device", GPU)
    yield copies
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def batch() -> Batch:
    hq, lq = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    return Batch(hq, lq, torch.full((4, 5, 2), torch.nan), [0, 1, 2, 3], torch.full((4, 68, 2), torch.nan))


def test_a_copy_that_waits_is_seen(waiting):
    with waiting:
        torch.zeros(3).to(GPU, non_blocking=True)
        assert waiting.seen == []
        torch.zeros(3).to(GPU)
        torch.tensor([1.0], device=GPU)
        torch.zeros(3, device=GPU).new_tensor([1.0])
    assert len(waiting.seen) == 3
    with pytest.raises(NotImplementedError):
        torch.zeros(3, device=GPU).tolist()


def test_all_losses_of_idm_and_of_its_critic_wait_for_no_copy(waiting):
    gammas = log_sigma(0.02, 1.5, 100.0, 16)
    with GPU:
        denoiser = UNet(image_size=32, channels=(8,), num_blocks=(1,), attention_resolutions=(), add_degraded=True)
        critic = PatchCritic(patch_size=2, channels=(8,))
        features = MobileFaceNetMaps(MobileFaceNet().eval().requires_grad_(False))
    ours = IntrinsicIteration(
        denoiser,
        Accelerator(cpu=True),
        gammas=gammas,
        prediction="sample",
        p=1,
        min_snr_clamp=5.0,
        optimisation=OPTIMISATION,
        seed=0,
        make_pipeline=lambda published: IDM(published, gammas),
        noise_levels=NoiseLevels(start_share=0.3, own_estimates=1.0),
        clean_weight=0.5,
        ssim_weight=0.1,
        features=features,
        feature_weight=0.1,
        adversary=Adversary(critic, weight=0.1, learning_rate=1e-3, augment=True),
    )
    with waiting:
        levels, judged = [], []
        ours.loss(batch(), levels, judged).backward()
        [(real, fake)] = judged
        assert ours.adversary is not None
        assert len(real)
        ours.adversary._loss(0, real, fake, torch.Generator())[0].backward()
    assert waiting.seen == []


def test_all_losses_of_the_baseline_and_of_its_critics_wait_for_no_copy(waiting):
    accelerator, adam = Accelerator(cpu=True), Adam(1e-3, (0.0, 0.99), milestones=(), factor=0.5)
    with GPU:
        generator = GFPGAN(32, num_style_feat=8, channel_multiplier=1, num_mlp=2, narrow=1 / 64)
        critic, components = StyleGAN2Discriminator(32, 1, 1 / 64), ComponentDiscriminators()
        face_network = MobileFaceNet().eval().requires_grad_(False)
    ours = AdversarialIteration(
        generator,
        accelerator,
        adversary=FaceAdversary(critic, accelerator, adam=adam, gamma=10.0, r1_every=1),
        components=ComponentAdversary(components, accelerator, adam=adam, adversarial=1.0, style=200.0),
        features=MobileFaceNetMaps(face_network),
        embedding=MobileFaceNetEmbedding(face_network),
        weights=Weights(
            l1=0.1,
            pyramid=1.0,
            pyramid_until=2,
            pyramid_after=0.0,
            perceptual=1.0,
            style=50.0,
            adversarial=0.1,
            identity=10.0,
        ),
        adam=adam,
        ema_decay=0.9,
        fix_decoder=False,
        seed=0,
    )
    with waiting:
        ours._micro_batch(0, batch())
    assert waiting.seen == []
