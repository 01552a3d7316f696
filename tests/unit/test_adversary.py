"""The adversarial finish: what the critic is trained on, and where the denoiser feels it."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file, save, save_file

from idm.config.assembly.intrinsic import build_learner, critic_weights
from idm.config.load import ConfigError, load_config
from idm.config.schema import IDMConfig
from idm.data.pairs import Batch
from idm.diffusion.adversarial import hinge_critic, r1
from idm.diffusion.process import add_noise
from idm.diffusion.schedule import log_sigma
from idm.io.ranges import to_diffusion
from idm.models.critics import PatchCritic
from idm.models.unet import UNet
from idm.restorers.idm import IDM
from idm.training.adversarial import CRITIC_FILE, Adversary
from idm.training.learner import IntrinsicIteration, NoiseLevels, Optimisation, training_noise
from idm.training.updates import all_finite

ROOT = Path(__file__).parents[2]
SEED = 3
GAMMAS = log_sigma(0.02, 1.5, 100.0, 16)
MIXED, ONLY_START = NoiseLevels(start_share=0.5), NoiseLevels(start_share=1.0)
OPTIMISATION = Optimisation(
    num_steps=10,
    learning_rate=1e-3,
    warmup_steps=0,
    decay="constant",
    betas=(0.9, 0.99),
    weight_decay=0.0,
    max_grad_norm=1.0,
    ema_decay=0.5,
)


@pytest.fixture
def learner():
    """Make a learner with a critic; accelerate's global state is reset around the test."""

    def learner(
        noise_levels: NoiseLevels = MIXED,
        weight: float | None = 0.5,
        seed_of_weights: int = 0,
        accumulation: int = 1,
        augment: bool = False,
        only_refinement: bool | None = None,
        mixed_precision: str = "no",
    ) -> IntrinsicIteration:
        reset()
        torch.manual_seed(seed_of_weights)
        denoiser = UNet(
            image_size=16,
            channels=(8, 16),
            num_blocks=(1, 1),
            attention_resolutions=(4,),
            head_dim=8,
            add_degraded=True,
            refine_channels=0 if only_refinement is None else 4,
        )
        critic = PatchCritic(patch_size=2, channels=(8,))
        return IntrinsicIteration(
            denoiser,
            Accelerator(cpu=True, mixed_precision=mixed_precision, gradient_accumulation_steps=accumulation),
            gammas=GAMMAS,
            prediction="sample",
            p=1,
            min_snr_clamp=None,
            optimisation=OPTIMISATION,
            seed=SEED,
            make_pipeline=lambda published: IDM(published, GAMMAS),
            noise_levels=noise_levels,
            adversary=None
            if weight is None
            else Adversary(
                critic,
                weight=weight,
                learning_rate=1e-2,
                r1_every=3,
                augment=augment,
                only_refinement=bool(only_refinement),
            ),
        )

    yield learner
    reset()


def reset() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def batches(size: int = 8, first: int = 0) -> Iterator[Batch]:
    """Random pictures; those at a position are always the same."""
    while True:
        positions = list(range(first, first + size))
        pictures = [
            torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(position))
            for position in positions
        ]
        hq, lq = torch.stack(pictures, dim=1)
        yield Batch(hq, lq, torch.full((size, 5, 2), torch.nan), positions)
        first += size


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def below_the_start(batch: Batch) -> torch.Tensor:
    """Which samples of a batch are refined, worked out from the noise levels themselves."""
    _, u = training_noise(SEED, batch.positions, batch.hq.float())
    refined = u[0] >= MIXED.start_share
    assert torch.equal(refined, MIXED.draw(GAMMAS, u) > GAMMAS[-1])
    assert refined.any()
    assert not refined.all()
    return refined


def moved(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """By 0 or 1 pixel, as the critic with patches of 2 pixels sees them."""
    rows, columns = torch.randint(2, (2,), generator=generator)
    images = torch.cat([images[:, :, 16 - rows :], images[:, :, : 16 - rows]], dim=2)
    return torch.cat([images[..., 16 - columns :], images[..., : 16 - columns]], dim=3)


# The critic


def test_the_critic_sees_a_face_at_every_place_within_a_patch(learner):
    adversary = learner().adversary
    image = torch.zeros(1, 3, 16, 16)
    image[..., 5, 9] = 1
    places = set()
    for seed in range(40):
        seen = adversary._seen(image, torch.Generator().manual_seed(seed))
        assert seen.sum() == 3
        places.add(tuple(seen[0, 0].nonzero()[0].tolist()))
    assert places == {(5, 9), (5, 10), (6, 9), (6, 10)}


def test_the_critic_judges_the_samples_below_the_start_and_the_denoisers_estimates_of_them(learner):
    trained, batch = learner(), next(batches())
    judged = []
    trained.loss(batch, judged=judged)
    ((real, fake),) = judged
    refined = below_the_start(batch)
    x_0, x_d = (to_diffusion(images.float() / 255) for images in (batch.hq, batch.lq))
    assert torch.equal(real, x_0[refined])
    eps, u = training_noise(SEED, batch.positions, x_0)
    gamma = MIXED.draw(GAMMAS, u)
    with torch.no_grad():
        estimate = trained.model(x_d=x_d, x_t=add_noise(x_0, eps, gamma), gamma=gamma)
    assert torch.equal(fake, estimate[refined])
    assert not fake.requires_grad


def test_the_critic_judges_no_face_that_is_not_degraded(learner):
    batch = next(batches())
    first, *others = below_the_start(batch).nonzero()[:, 0].tolist()
    undegraded = batch.lq.clone()
    undegraded[first] = batch.hq[first]
    judged = []
    learner().loss(replace(batch, lq=undegraded), judged=judged)
    ((real, fake),) = judged
    assert torch.equal(real, to_diffusion(batch.hq.float() / 255)[others])
    assert len(fake) == len(others)


@pytest.mark.parametrize("step", [0, 1])
def test_a_step_of_the_critic_is_adams_on_the_hinge_loss_and_now_and_then_r1(learner, step):
    trained = learner()
    judged = []
    trained.loss(next(batches()), judged=judged)
    ((real, fake),) = judged
    critic = copy.deepcopy(trained.adversary.critic)
    adam = torch.optim.Adam(critic.parameters(), lr=1e-2, betas=(0.5, 0.99))
    generator = trained._augmentation(next(batches()), "critic")
    loss = hinge_critic(critic(moved(real, generator)), critic(moved(fake, generator)))
    penalty = 3 * 1.0 / 2 * r1(lambda images: critic(images).mean(dim=(1, 2, 3)), real)
    (loss + penalty if step == 0 else loss).backward()
    adam.step()

    values = trained.train_step(step, batches())
    torch.testing.assert_close(values["critic_loss"], len(real) * torch.stack([loss.detach(), torch.ones(())]))
    for ours, theirs in zip(weights(trained.adversary.critic), weights(critic), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # a step is of about 1e-2


def test_in_mixed_precision_the_critic_computes_in_bfloat16_but_r1_in_float32(learner):
    trained, computed = learner(mixed_precision="bf16"), []
    first = next(module for module in trained.adversary.critic.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: computed.append(output.dtype))
    trained.train_step(0, batches())
    assert computed == [torch.bfloat16] * 3 + [torch.float32]  # the denoiser's loss, real, fake; R1


@pytest.mark.parametrize("augment", [False, True])
def test_without_samples_below_the_start_the_critic_learns_nothing(learner, augment):
    trained = learner(ONLY_START, augment=augment)
    before, denoiser = weights(trained.adversary.critic), weights(trained.model)
    values = trained.train_step(0, batches())
    assert values["critic_loss"].tolist() == [0, 0]  # every process has to log the same names
    assert same(weights(trained.adversary.critic), before)
    assert not same(weights(trained.model), denoiser)


def test_a_micro_batch_without_samples_below_the_start_withholds_no_gradient_of_another(learner):
    """The last micro-batch of a step has none, and the step is taken all the same: nothing waits for the next one."""
    trained, source = learner(accumulation=2), batches(size=1)
    kinds = {
        bool(below): batch for batch, below in ((b, is_refined(b)) for b, _ in zip(source, range(20), strict=False))
    }
    before = weights(trained.adversary.critic)
    trained.train_step(0, iter([kinds[True], kinds[False]]))
    assert not same(weights(trained.adversary.critic), before)
    assert all(parameter.grad is None for parameter in trained.adversary.critic.parameters())


def is_refined(batch: Batch) -> bool:
    _, u = training_noise(SEED, batch.positions, batch.hq.float())
    return bool(MIXED.draw(GAMMAS, u) > GAMMAS[-1])


def test_an_update_of_the_critic_that_is_not_finite_is_skipped_and_counted(learner):
    trained, source = learner(), batches()
    critic, denoiser = weights(trained.adversary.critic), weights(trained.model)
    spoilt = next(trained.adversary.critic.parameters())
    hook = spoilt.register_hook(lambda gradient: gradient * torch.nan)
    trained.train_step(0, source)
    hook.remove()
    assert trained.skipped == 1
    assert same(weights(trained.adversary.critic), critic)
    assert not same(weights(trained.model), denoiser)  # which had a finite gradient
    assert same(list(trained.ema.shadow_params), weights(trained.model))
    trained.train_step(1, source)
    assert trained.skipped == 0
    assert not same(weights(trained.adversary.critic), critic)


def test_a_resumed_critic_has_the_learning_rate_of_its_settings(learner, tmp_path):
    trained = learner()
    trained.train_step(0, batches())
    trained.save(tmp_path)
    resumed = learner()
    resumed.adversary.learning_rate = 1e-4
    resumed.load(tmp_path)
    resumed.train_step(1, batches())
    assert [group["lr"] for group in resumed.adversary.optimizer.param_groups] == [1e-4]


# The denoiser


def gradient_at_the_estimate(trained: IntrinsicIteration, batch: Batch) -> torch.Tensor:
    """Of the loss, at what the denoiser gives for each sample."""
    estimates = []

    def keep(module, args, output) -> None:
        output.retain_grad()
        estimates.append(output)

    hook = trained.model.register_forward_hook(keep)
    trained.loss(batch).backward()
    hook.remove()
    (estimate,) = estimates
    return estimate.grad


def test_the_denoiser_feels_the_critic_below_the_start_only(learner):
    batch = next(batches())
    refined = below_the_start(batch)
    pixels = gradient_at_the_estimate(learner(weight=None), batch)
    trained = learner()
    found = gradient_at_the_estimate(trained, batch)
    adversarial = (found - pixels).abs().amax(dim=(1, 2, 3))
    assert torch.equal(found[~refined], pixels[~refined])
    assert (adversarial[refined] > 0).all()
    assert all(parameter.grad is None for parameter in trained.adversary.critic.parameters())


def test_the_adversarial_gradient_is_that_of_the_weighted_mean_logit(learner):
    batch = next(batches())
    refined = below_the_start(batch)
    pixels = gradient_at_the_estimate(learner(weight=None), batch)
    trained, judged = learner(), []
    trained.loss(batch, judged=judged)
    ((_, fake),) = judged
    fake.requires_grad_(True)
    seen = moved(fake, trained._augmentation(batch, "denoiser"))
    (wanted,) = torch.autograd.grad(-0.5 * trained.adversary.critic(seen).mean(), fake)
    found = gradient_at_the_estimate(trained, batch)[refined] - pixels[refined]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


# Resuming


def test_four_steps_equal_two_steps_saving_loading_and_two_steps(learner, tmp_path):
    straight, source = learner(augment=True), batches()
    logged = [straight.train_step(step, source) for step in range(4)]

    broken, source = learner(augment=True), batches()
    for step in range(2):
        broken.train_step(step, source)
    broken.save(tmp_path)
    saved = load_file(tmp_path / CRITIC_FILE)
    critic = broken.adversary.critic.state_dict()
    assert saved.keys() == critic.keys()
    assert all(torch.equal(saved[name], weight) for name, weight in critic.items())

    resumed = learner(augment=True, seed_of_weights=9)  # other initial weights, of the critic too
    resumed.load(tmp_path)
    source = batches(first=16)
    for step in (2, 3):
        values = resumed.train_step(step, source)
        assert {"loss", "critic_loss"} <= values.keys()
        assert all(torch.equal(value, logged[step][name]) for name, value in values.items())
    for ours, theirs in ((resumed.model, straight.model), (resumed.adversary.critic, straight.adversary.critic)):
        assert same(weights(ours), weights(theirs))
    assert same(list(resumed.ema.shadow_params), list(straight.ema.shadow_params))


def test_a_critic_that_is_not_finite_is_reported(learner):
    trained = learner()
    assert all_finite(trained.tensors())
    with torch.no_grad():
        next(trained.adversary.critic.parameters()).view(-1)[0] = torch.nan
    assert not all_finite(trained.tensors())


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({}, "this run has no checkpoint yet"),
        ({"step_00000002/progress.json": b"{}"}, "model_1.safetensors: is not a complete weights file"),
        ({f"step_00000002/{CRITIC_FILE}": save({"other": torch.zeros(1)})}, "is another network than the critic"),
    ],
)
def test_a_run_without_a_fitting_critic_is_refused(tmp_path, files, fault):
    for name, content in files.items():
        path = tmp_path / "checkpoints" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^objective.adversarial.init_from: .*{fault}"):
        critic_weights(tmp_path, PatchCritic(patch_size=2, channels=(8, 8)))


def test_the_critic_of_the_newest_checkpoint_is_continued(tmp_path):
    for step in (3, 20):
        critic = PatchCritic(patch_size=2, channels=(8, 8))
        folder = tmp_path / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        save_file(critic.state_dict(), folder / CRITIC_FILE)
    found = critic_weights(tmp_path, PatchCritic(patch_size=2, channels=(8, 8)))
    assert all(torch.equal(found[name], weight) for name, weight in critic.state_dict().items())


def test_a_loss_of_the_refinement_alone_trains_no_patches(learner):
    def gradients(**settings):
        trained, batch = learner(**settings), next(batches())
        trained.model.refine.conv_out.weight.data.fill_(0.1)  # at zero it passes no gradient on
        loss = trained.loss(batch, judged=[])
        loss.backward()
        return loss.detach(), {name: weight.grad for name, weight in trained.model.named_parameters()}

    plain, pixels = gradients(weight=None, only_refinement=False)
    whole, everywhere = gradients(only_refinement=False)
    limited, refinement = gradients(only_refinement=True)
    torch.testing.assert_close(limited, whole)
    assert limited != plain
    for name, gradient in refinement.items():
        wanted = everywhere if name.startswith("refine.") else pixels
        torch.testing.assert_close(gradient, wanted[name])
    assert not torch.equal(everywhere["conv_in.weight"], pixels["conv_in.weight"])
    assert not torch.equal(everywhere["refine.conv.weight"], pixels["refine.conv.weight"])


@pytest.mark.usefixtures("learner")  # it resets accelerate's state
def test_a_loss_of_the_refinement_alone_needs_a_refinement():
    config = load_config(ROOT / "configs" / "faces64.yaml", IDMConfig, ["objective.adversarial.only_refinement=true"])
    with pytest.raises(ConfigError, match=r"set denoiser\.refine_channels"):
        build_learner(config, Accelerator(cpu=True))
