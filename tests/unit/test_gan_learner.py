"""One step of GFP-GAN's training against one that spells everything out, and what must hold of it."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import save_file
from torch.nn import functional as F

from gan_baseline.adversary import Adam, ComponentAdversary, FaceAdversary
from gan_baseline.build import begin_from
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.learner import AdversarialIteration, Weights
from gan_baseline.losses import gram
from gan_baseline.prior import PriorIteration, grow, load_prior
from gan_baseline.restorer import GFPGANRestorer, load_gfpgan_restorer
from gan_baseline.stylegan2 import StyleGAN2Generator, noise_maps, noise_size, upsample
from gan_baseline.weights import WeightsError, save_gfpgan
from idm.config.load import ConfigError
from idm.data.pairs import Batch
from idm.diffusion.noise import normals
from idm.faces.components import ComponentDiscriminators, component_boxes, crop_components
from idm.faces.features import MobileFaceNetEmbedding, MobileFaceNetMaps
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.template import ffhq_landmarks
from idm.models.critics import StyleGAN2Discriminator
from idm.training.protocol import Learner

SIZE = 32  # the least at which eyes pass the component discriminators
SEED = 3
ALL = Weights(
    l1=0.1,
    pyramid=1.0,
    pyramid_until=2,
    pyramid_after=1e-12,
    perceptual=1.0,
    style=50.0,
    adversarial=0.1,
    identity=10.0,
)
NONE = Weights(0.0, 0.0, 0, 1e-12, 0.0, 0.0, 0.0, 0.0)
ADAM = Adam(1e-3, (0.0, 0.99), milestones=(3,), factor=0.5)
CRITIC_ADAM = Adam(2e-3, (0.0, 0.9), milestones=(3,), factor=0.5)
COMPONENT_ACCURACIES = {f"component_{name}_accuracy" for name in ("real", "fake", "pair")}
COMPONENT_ADAM = Adam(3e-3, (0.9, 0.99), milestones=(3,), factor=0.5)


def fresh_generator(narrow: float = 1 / 64) -> GFPGAN:
    torch.manual_seed(0)
    return GFPGAN(SIZE, num_style_feat=8, channel_multiplier=1, num_mlp=2, narrow=narrow)


def fresh_face_network() -> MobileFaceNet:
    torch.manual_seed(1)
    return MobileFaceNet().eval().requires_grad_(False)


@pytest.fixture
def learner():
    """Make a learner with the losses of ``weights``; accelerate's global state is reset around the test."""

    def learner(
        weights: Weights = ALL,
        accumulation: int = 1,
        r1: float = 10.0,
        component_adversarial: float = 1.0,
        component_style: float = 200.0,
        stddev_group: int = 4,
        **change,
    ) -> AdversarialIteration:
        reset()
        accelerator = Accelerator(cpu=True, mixed_precision="no", gradient_accumulation_steps=accumulation)
        network = fresh_face_network()
        torch.manual_seed(2)
        critic = StyleGAN2Discriminator(SIZE, 1, 1 / 64, stddev_group)
        critics = ComponentDiscriminators()
        adversary = FaceAdversary(critic, accelerator, adam=CRITIC_ADAM, gamma=r1, r1_every=2)
        components = ComponentAdversary(
            critics,
            accelerator,
            adam=COMPONENT_ADAM,
            adversarial=component_adversarial,
            style=component_style,
        )
        settings = {
            "adversary": adversary if weights.adversarial else None,
            "components": components if component_adversarial or component_style else None,
            "features": MobileFaceNetMaps(network) if weights.perceptual or weights.style else None,
            "embedding": MobileFaceNetEmbedding(network) if weights.identity else None,
            "weights": weights,
            "adam": ADAM,
            "ema_decay": 0.15,  # is reached in the second step: (1 + 1) / (10 + 1) > 0.15
            "fix_decoder": False,
            "seed": SEED,
        }
        return AdversarialIteration(fresh_generator(), accelerator, **{**settings, **change})

    yield learner
    reset()


def reset() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def batches(size: int = 4, first: int = 0) -> Iterator[Batch]:
    """Random pictures; those at a position are always the same. Every third has no landmarks."""
    while True:
        yield batch_of(list(range(first, first + size)))
        first += size


def batch_of(positions: list[int]) -> Batch:
    def picture(position: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(position)
        coarse = torch.rand(2, 3, 4, 4, generator=rng)
        return (F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)

    hq, lq = torch.stack([picture(position) for position in positions], dim=1)
    landmarks = torch.from_numpy(ffhq_landmarks(SIZE)).float().expand(len(positions), 5, 2).clone()
    landmarks[[position % 3 == 2 for position in positions]] = torch.nan
    return Batch(hq, lq, landmarks, positions)


def weights_of(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 0.0) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def distance(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Mean difference: where a gradient is about zero, Adam's step is of its rounded sign."""
    differences = [(a - b).abs().flatten() for a, b in zip(ours, theirs, strict=True)]
    return torch.cat(differences).mean().item()


def networks(trained: AdversarialIteration) -> dict[str, torch.nn.Module]:
    return {
        "generator": trained.model,
        "discriminator": trained.adversary.model,
        "components": trained.components.model,
    }


# One step, spelt out


def by_hand(num_steps: int) -> tuple[list[dict[str, float]], dict[str, list[torch.Tensor]], list[torch.Tensor]]:
    """Losses, weights and averaged weights of a training of all networks that spells everything out."""
    generator, face = fresh_generator(), fresh_face_network()
    torch.manual_seed(2)
    critic, critics = StyleGAN2Discriminator(SIZE, 1, 1 / 64, 4), ComponentDiscriminators()
    players = {"generator": generator, "discriminator": critic, "components": critics}
    rates = {"generator": 1e-3, "discriminator": 2e-3, "components": 3e-3}
    betas = {"generator": (0.0, 0.99), "discriminator": (0.0, 0.9), "components": (0.9, 0.99)}
    optimizers = {
        name: torch.optim.Adam(
            [p for key, p in net.named_parameters() if "style_mlp" not in key], lr=rates[name], betas=betas[name]
        )
        for name, net in players.items()
    }
    features, embed = MobileFaceNetMaps(face), MobileFaceNetEmbedding(face)
    average, rows, source = weights_of(generator), [], batches()
    for step in range(num_steps):
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name] if step < 3 else rates[name] / 2
        batch = next(source)
        hq, x_d = (images.float() / 127.5 - 1 for images in (batch.hq, batch.lq))
        numbers = normals(SEED, torch.tensor(batch.positions), (noise_size(SIZE),))
        fake, rgbs = generator(x_d, noise_maps(numbers, SIZE))
        known = ~batch.landmarks.isnan().any(dim=2).any(dim=1)
        boxes = component_boxes(batch.landmarks[known], SIZE)
        share = known.float().mean()

        def cut(images, boxes=boxes, known=known):
            return crop_components(images[known], boxes)

        half = F.avg_pool2d(hq, 2)
        scales = [F.avg_pool2d(half, 2), half, hq]
        terms = {
            "l1": 0.1 * (fake - hq).abs().mean(),
            "pyramid": (1 if step < 2 else 1e-12)
            * sum((a - b).abs().mean() for a, b in zip(rgbs, scales, strict=True)),
            "perceptual": sum((a - b).abs().mean() for a, b in zip(*maps(features, fake, hq, batch), strict=True)),
            "style": 50
            * sum((gram(a) - gram(b)).abs().mean() for a, b in zip(*maps(features, fake, hq, batch), strict=True)),
            "identity": 10 * (embed(fake, batch.landmarks) - embed(hq, batch.landmarks)).abs().mean(),
            "adversarial": 0.1 * F.softplus(-critic(fake)).mean(),
            "component_adversarial": share * sum(F.softplus(-y).mean() for y, _ in critics(cut(fake)).values()),
            "component_style": 200 * share * style_of(critics, cut(fake), cut(hq)),
        }
        own, shares, parts = step_of_critics(critic, critics, hq, fake.detach(), cut, share, step)
        gradients = {
            "generator": torch.autograd.grad(sum(terms.values()), trainable(generator), retain_graph=True),
            "discriminator": torch.autograd.grad(sum(own.values()), trainable(critic)),
            "components": torch.autograd.grad(parts, trainable(critics)),
        }
        for name, optimizer in optimizers.items():
            for parameter, gradient in zip(trainable(players[name]), gradients[name], strict=True):
                parameter.grad = gradient
            optimizer.step()
        decay = 0.0 if step == 0 else min(0.15, (1 + step) / (10 + step))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights_of(generator), strict=True)]
        loss = sum(terms.values())
        every = {"loss": loss, **terms, **own, **shares, "component_discriminator": parts}
        rows.append({name: value.item() for name, value in every.items()})
    return rows, {name: weights_of(net) for name, net in players.items()}, average


def maps(features, fake, hq, batch):
    return features(fake, batch.landmarks), features(hq, batch.landmarks)


def style_of(critics, fakes, reals):
    (ours, theirs), value = (critics(fakes), critics(reals)), 0
    for name in ours:
        for weight, a, b in zip((0.5, 1), ours[name][1], theirs[name][1], strict=True):
            value = value + weight * (gram(a) - gram(b)).abs().mean()
    return value


def step_of_critics(critic, critics, hq, fake, cut, share, step):
    own = {"discriminator": F.softplus(-critic(hq)).mean() + F.softplus(critic(fake)).mean()}
    shares = {"real_accuracy": (critic(hq) > 0).float().mean(), "fake_accuracy": (critic(fake) < 0).float().mean()}
    shares["pair_accuracy"] = (critic(hq) > critic(fake)).float().mean()
    real = hq.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
    own["r1"] = (step % 2) * 2 * 10 / 2 * gradient.square().flatten(1).sum(dim=1).mean()
    reals, fakes = critics(cut(hq)), critics(cut(fake))
    each = [F.softplus(-reals[n][0]).mean() + F.softplus(fakes[n][0]).mean() for n in reals]
    return own, shares, share * sum(each)


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if "style_mlp" not in name]


def test_training_equals_a_loop_that_spells_everything_out(learner):
    trained, source = learner(), batches()
    values = [trained.train_step(step, source) for step in range(4)]
    rows, wanted, average = by_hand(4)
    for ours, theirs in zip(values, rows, strict=True):
        shares = COMPONENT_ACCURACIES  # of all faces, also those without landmarks
        assert ours.keys() == theirs.keys() | shares
        found = {name: value.item() for name, value in ours.items() if name not in shares}
        assert found == pytest.approx(theirs, rel=2e-3, abs=1e-6)
    for name, network in networks(trained).items():
        assert distance(weights_of(network), wanted[name]) < 2e-6
    assert distance(list(trained.ema.shadow_params), average) < 2e-6
    assert max((a - w).abs().max().item() for a, w in zip(average, wanted["generator"], strict=True)) > 1e-4


# Who learns from what


def test_the_discriminators_get_no_gradient_from_the_generators_step(learner):
    trained = learner()
    batch = batch_of([0, 1, 2, 3])
    hq = batch.hq.float() / 127.5 - 1
    restored, rgbs = trained.model(batch.lq.float() / 127.5 - 1)
    terms = trained.generator_losses(0, restored, rgbs, hq, batch.landmarks)
    sum(terms.values()).backward()
    for critic in (trained.adversary.model, trained.components.model):
        assert all(parameter.grad is None and parameter.requires_grad for parameter in critic.parameters())
    reached = [name for name, p in trained.model.named_parameters() if p.grad is not None]
    assert sorted(reached) == sorted(n for n, _ in trained.model.named_parameters() if "style_mlp" not in n)


def test_no_gradient_is_left_over_for_the_next_step(learner):
    trained = learner()
    trained.train_step(0, batches())
    for network in networks(trained).values():
        assert all(parameter.grad is None for parameter in network.parameters())


def test_a_fixed_decoder_stays_as_it_is_and_the_rest_learns(learner):
    trained = learner(fix_decoder=True)
    before = {name: p.detach().clone() for name, p in trained.model.named_parameters()}
    trained.train_step(0, batches())
    changed = {name for name, p in trained.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert not any(name.startswith("stylegan_decoder") for name in changed)
    assert {"final_linear.weight", "condition_scale.0.2.weight", "toRGB.0.weight"} <= changed


def test_two_micro_batches_make_the_same_step_as_one_batch(learner):
    """But for the minibatch standard deviation, whose groups are within a micro-batch: here groups of one."""
    whole = learner(stddev_group=1)
    value = whole.train_step(1, batches(size=4))
    split = learner(stddev_group=1, accumulation=2)
    source = batches(size=2)
    split_value = split.train_step(1, source)
    assert next(source).positions == [4, 5]  # two were taken
    assert {n: v.item() for n, v in split_value.items()} == pytest.approx({n: v.item() for n, v in value.items()}, 1e-4)
    for name, network in networks(whole).items():
        # Adam's first step is a sign; the optimiser's second moment is the square of the gradient itself
        states = [player.optimizer.state_dict()["state"] for player in players_of(whole, split)[name]]
        for index in states[0]:
            a, b = (state[index]["exp_avg_sq"] for state in states)
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-9)
        assert network is not None


def players_of(*learners: AdversarialIteration) -> dict[str, list]:
    return {
        "generator": list(learners),
        "discriminator": [trained.adversary for trained in learners],
        "components": [trained.components for trained in learners],
    }


def test_the_minibatch_deviation_is_what_differs_between_micro_batches(learner):
    values = [learner(accumulation=n).train_step(0, batches(size=4 // n)) for n in (1, 2)]
    assert values[0]["l1"].item() == pytest.approx(values[1]["l1"].item(), rel=1e-5)
    assert values[0]["discriminator"].item() != pytest.approx(values[1]["discriminator"].item(), rel=1e-5)


def test_r1_comes_every_so_many_steps_and_counts_for_all_of_them(learner):
    trained = learner()
    terms = [trained.adversary.own_losses(step, *([torch.rand(4, 3, SIZE, SIZE)] * 2))[0] for step in range(4)]
    assert [bool(term["r1"]) for term in terms] == [False, True, False, True]
    real = torch.rand(4, 3, SIZE, SIZE)
    once = trained.adversary._lazy_r1(real)
    trained.adversary.r1_every = 6
    assert trained.adversary._lazy_r1(real).item() == pytest.approx(3 * once.item(), rel=1e-5)


def test_a_relativistic_discriminator_compares_each_face_with_its_original(learner):
    adversary = learner().adversary
    adversary.relativistic = True
    real, fake = torch.rand(2, 4, 3, SIZE, SIZE).unbind()
    fake.requires_grad_(True)
    behind = (adversary.model(fake) - adversary.model(real)).detach()
    loss = adversary.generator_loss(fake, real)
    assert loss.item() == pytest.approx(F.softplus(-behind).mean().item(), rel=1e-4)
    loss.backward()
    assert fake.grad is not None
    assert all(weight.grad is None for weight in adversary.model.parameters())

    terms, accuracies = adversary.own_losses(0, real, fake.detach())
    assert terms["discriminator"].item() == pytest.approx(F.softplus(behind).mean().item(), rel=1e-4)
    assert accuracies["pair_accuracy"] == (behind < 0).float().mean()
    with torch.no_grad():
        adversary.model.final_linear[1].bias += 100
    shifted = adversary.own_losses(0, real, fake.detach())[1]
    assert shifted == accuracies


def test_relativistic_component_critics_compare_patches_of_known_faces_with_the_originals(learner):
    components = learner().components
    components.relativistic, components.style = True, 0.0
    real, fake = torch.rand(2, 4, 3, SIZE, SIZE).unbind()
    known = torch.tensor([1.0, 0.0, 1.0, 1.0])
    boxes = component_boxes(torch.from_numpy(ffhq_landmarks(SIZE)).float().repeat(4, 1, 1), SIZE)
    crops = [components.model(crop_components(images, boxes)) for images in (real, fake)]
    gaps = [(known[:, None, None, None] * (crops[0][n][0] - crops[1][n][0])).detach() for n in crops[0]]
    chance = math.log(2) / 4  # the unknown face counts as zero, which this softplus does not

    terms = components.generator_losses(fake, real, known, boxes)
    wanted = sum(F.softplus(gap).mean().item() - chance for gap in gaps)
    assert terms["component_adversarial"].item() == pytest.approx(components.adversarial * wanted, rel=1e-4)
    own, accuracies = components.own_losses(real, fake, known, boxes)
    wanted = sum(F.softplus(-gap).mean().item() - chance for gap in gaps)
    assert own["component_discriminator"].item() == pytest.approx(wanted, rel=1e-4)
    pairs = [(crops[0][n][0] > crops[1][n][0]).float().mean().item() for n in crops[0]]
    assert accuracies["component_pair_accuracy"].item() == pytest.approx(sum(pairs) / 3)
    with torch.no_grad():
        for critic in components.model.critics.values():
            critic.final_conv.bias += 100
    shifted = components.own_losses(real, fake, known, boxes)[1]
    assert all(shifted[name].item() == pytest.approx(share.item(), abs=0.01) for name, share in accuracies.items())


def test_r1_is_computed_in_float32_also_in_mixed_precision():
    reset()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    torch.manual_seed(2)
    critic = StyleGAN2Discriminator(SIZE, 1, 1 / 64)
    exact = copy.deepcopy(critic)
    adversary = FaceAdversary(critic, accelerator, adam=CRITIC_ADAM, gamma=1.0, r1_every=1)
    real = torch.rand(4, 3, SIZE, SIZE)
    x = real.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(exact(x).sum(), x)
    wanted = 0.5 * gradient.square().flatten(1).sum(dim=1).mean().item()
    assert adversary._lazy_r1(real).item() == pytest.approx(wanted, rel=1e-5)
    assert adversary.model(real).detach() is not None
    assert (adversary.model(real) - exact(real)).abs().max() > 1e-4  # while the logits are rounded
    reset()


# What a weight of zero saves


def test_a_loss_of_weight_zero_is_not_there_and_its_network_never_called(learner, monkeypatch):
    trained = learner(NONE.__class__(**{**NONE.__dict__, "l1": 1.0}), component_adversarial=0.0, component_style=0.0)

    def never(*arguments):
        raise AssertionError("called for nothing")

    for network in (StyleGAN2Discriminator, ComponentDiscriminators, MobileFaceNet, MobileFaceNetMaps):
        monkeypatch.setattr(network, "forward", never)
    for name in ("pyramid_l1", "gram", "style_l1"):
        monkeypatch.setattr(f"gan_baseline.losses.{name}", never)
    monkeypatch.setattr("gan_baseline.learner.feature_l1", never)
    for name in ("r1", "generator_logistic", "discriminator_logistic"):
        monkeypatch.setattr(f"idm.diffusion.adversarial.{name}", never)
    values = trained.train_step(1, batches())
    assert values.keys() == {"loss", "l1"}
    assert trained.adversary is trained.components is trained.features is trained.embedding is None


@pytest.mark.parametrize(
    ("kept", "term"),
    [({"perceptual": 1.0}, "perceptual"), ({"style": 1.0}, "style"), ({"identity": 1.0}, "identity")],
)
def test_each_loss_can_stand_alone(learner, kept, term):
    trained = learner(NONE.__class__(**{**NONE.__dict__, **kept}), component_adversarial=0.0, component_style=0.0)
    assert trained.train_step(0, batches()).keys() == {"loss", term}


def test_components_can_have_either_of_their_losses(learner):
    only = {**NONE.__dict__, "l1": 1.0}
    always = {"loss", "l1", "component_discriminator", *COMPONENT_ACCURACIES}
    style = learner(NONE.__class__(**only), component_adversarial=0.0, component_style=1.0)
    assert style.train_step(0, batches()).keys() == {*always, "component_style"}
    logistic = learner(NONE.__class__(**only), component_adversarial=1.0, component_style=0.0)
    assert logistic.train_step(0, batches()).keys() == {*always, "component_adversarial"}


def test_the_penalty_is_zero_without_r1(learner):
    assert "r1" not in learner(r1=0.0).train_step(1, batches())


def test_faces_without_landmarks_teach_the_component_discriminators_nothing(learner):
    trained = learner()
    batch = batch_of([2, 5, 8, 11])
    assert batch.landmarks.isnan().all()
    before = weights_of(trained.components.model)
    values = trained.train_step(0, iter([batch]))
    assert values["component_style"].item() == values["component_discriminator"].item() == 0
    assert values["loss"].isfinite()
    assert_same(weights_of(trained.components.model), before)


# Randomness, saving, publishing


def test_noise_follows_from_seed_and_position_alone(learner):
    trained = learner()
    first = [noise[1] for noise in trained.noise([7, 9])]
    torch.rand(3)
    alone = [noise[0] for noise in trained.noise([9])]
    assert_same(first, alone)
    assert not torch.equal(trained.noise([7])[0], trained.noise([9])[0])


def test_four_steps_equal_two_steps_saving_loading_and_two_steps(learner, tmp_path):
    straight, source = learner(), batches()
    values = [straight.train_step(step, source) for step in range(4)]
    final = {name: weights_of(network) for name, network in networks(straight).items()}
    average = copy.deepcopy(list(straight.ema.shadow_params))
    states = {name: players[0].optimizer.state_dict() for name, players in players_of(straight).items()}
    states = copy.deepcopy(states)

    broken, source = learner(), batches()
    for step in range(2):
        broken.train_step(step, source)
    broken.save(tmp_path)

    resumed = learner()
    with torch.no_grad():
        for network in networks(resumed).values():
            for parameter in network.parameters():
                parameter.add_(1.0)  # other weights: all of them must come from the file
        for noise in resumed.published.buffers():
            noise.zero_()
    resumed.load(tmp_path)
    assert_same(list(resumed.published.buffers()), list(broken.published.buffers()))
    source = batches(first=8)
    for step in (2, 3):
        ours = resumed.train_step(step, source)
        assert ours.keys() == values[step].keys()
        assert all(torch.equal(ours[name], values[step][name]) for name in ours), step
    for name, network in networks(resumed).items():
        assert_same(weights_of(network), final[name])
    assert_same(list(resumed.ema.shadow_params), average)
    published = list(resumed.restorer().generator.parameters())
    assert not any(weight.requires_grad for weight in [*resumed.ema.shadow_params, *published])
    for name, players in players_of(resumed).items():
        for index, state in players[0].optimizer.state_dict()["state"].items():
            for key, value in state.items():
                assert torch.equal(value, states[name]["state"][index][key]), (name, index, key)


def test_the_average_is_what_is_published(learner, tmp_path):
    trained, source = learner(ema_decay=0.9), batches()
    for step in range(3):
        trained.train_step(step, source)
    before = weights_of(trained.model)
    restorer = trained.restorer()
    assert_same(weights_of(restorer.generator), list(trained.ema.shadow_params))
    assert max((p - w).abs().max().item() for p, w in zip(weights_of(restorer.generator), before, strict=True)) > 1e-4
    assert_same(weights_of(trained.model), before)
    trained.save(tmp_path)
    lq = torch.rand(2, 3, SIZE, SIZE)
    torch.testing.assert_close(
        load_gfpgan_restorer(tmp_path, torch.device("cpu")).restore(lq, [1, 2]),
        restorer.restore(lq, [1, 2]),
        rtol=0,
        atol=0,
    )


def test_the_iteration_is_a_learner(learner):
    assert isinstance(learner(), Learner)


# The restorer


def noisy_generator() -> GFPGAN:
    generator = fresh_generator()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("style_conv1.weight", "style_convs.1.weight")):  # the noises' strengths
                parameter.fill_(0.5)
    return generator.requires_grad_(False)


def test_a_restored_face_depends_on_itself_and_its_seed_only():
    restorer = GFPGANRestorer(noisy_generator())
    lq = torch.rand(3, 3, SIZE, SIZE)
    together = restorer.restore(lq, [5, 6, 5])
    torch.testing.assert_close(restorer.restore(lq[1:2], [6]), together[1:2], rtol=0, atol=1e-5)
    assert (restorer.restore(lq[1:2], [7]) - together[1:2]).abs().max() > 1e-3
    assert together.min() >= 0
    assert together.max() <= 1


def test_the_restorer_maps_ranges_to_and_from_the_network(monkeypatch):
    generator = fresh_generator()
    seen = []

    def forward(x_d, noise):
        seen.append(x_d)
        return x_d / 2, []

    monkeypatch.setattr(generator, "forward", forward)
    restored = GFPGANRestorer(generator).restore(torch.full((1, 3, SIZE, SIZE), 0.75), [0])
    assert seen[0].unique().tolist() == [0.5]
    assert restored.unique().tolist() == [0.625]


def test_a_run_stands_for_its_best_checkpoint(learner, tmp_path):
    from gan_baseline.restorer import find_gfpgan
    from idm.io.run_folder import mark_best

    for step in (2, 4):
        (tmp_path / "checkpoints" / f"step_{step:08d}").mkdir(parents=True)
    newest = tmp_path / "checkpoints" / "step_00000004"
    assert find_gfpgan(tmp_path) == newest / "gfpgan.safetensors"
    mark_best(tmp_path / "checkpoints", 2, 20.0)
    assert find_gfpgan(tmp_path) == tmp_path / "checkpoints" / "step_00000002" / "gfpgan.safetensors"
    assert find_gfpgan(newest) == newest / "gfpgan.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find_gfpgan(tmp_path / "nothing")


@pytest.mark.parametrize("player", ["generator", "adversary", "components"])
def test_a_gradient_that_is_not_finite_changes_nothing_of_its_network(learner, player):
    trained, source = learner(), batches()
    trained.train_step(0, source)
    network = trained.model if player == "generator" else getattr(trained, player).model
    before, average = weights_of(network), copy.deepcopy(list(trained.ema.shadow_params))
    spoilt = [p for p in network.parameters() if p.requires_grad][-1]
    hook = spoilt.register_hook(lambda gradient: gradient * torch.nan)
    trained.train_step(1, source)
    hook.remove()
    assert trained.skipped == 1
    assert distance(weights_of(network), before) == 0
    assert (distance(list(trained.ema.shadow_params), average) == 0) == (player == "generator")
    trained.train_step(2, source)
    assert trained.skipped == 0
    assert all(torch.isfinite(weight).all() for weight in trained.tensors())
    assert distance(weights_of(network), before) > 0


def test_a_training_begins_from_the_weights_of_another(tmp_path):
    donor = noisy_generator()
    save_gfpgan(donor, tmp_path / "gfpgan.safetensors")
    for path in (tmp_path, tmp_path / "gfpgan.safetensors"):
        generator = fresh_generator()
        begin_from(path, generator)
        assert distance(weights_of(generator), weights_of(donor)) == 0
    with pytest.raises(ConfigError, match=r"^train.init_from: .*absent"):
        begin_from(tmp_path / "absent", fresh_generator())
    with pytest.raises(ConfigError, match=r"^train.init_from: "):
        begin_from(tmp_path, fresh_generator(narrow=1 / 32))


# Stage zero


@pytest.fixture
def prior_learner():
    def prior_learner() -> PriorIteration:
        reset()
        accelerator = Accelerator(cpu=True, mixed_precision="no")
        torch.manual_seed(4)
        generator = StyleGAN2Generator(SIZE, 8, 1, 2, 1 / 64)
        adversary = FaceAdversary(
            StyleGAN2Discriminator(SIZE, 1, 1 / 64), accelerator, adam=CRITIC_ADAM, gamma=10.0, r1_every=2
        )
        return PriorIteration(
            generator, accelerator, adversary=adversary, adam=ADAM, ema_decay=0.9, mixing=0.5, seed=SEED
        )

    yield prior_learner
    reset()


def test_stage_zero_draws_its_codes_from_seed_and_position_alone(prior_learner):
    trained = prior_learner()
    z, crossover, noise = trained.draw(list(range(200)))
    again = trained.draw([150])
    assert torch.equal(again[0][:, 0], z[:, 150])
    assert torch.equal(again[1][0], crossover[150])
    assert torch.equal(again[2][2][0], noise[2][150])
    mixed = (crossover < trained.published.num_codes).float().mean().item()
    assert mixed == pytest.approx(0.5, abs=0.12)
    assert (crossover >= 1).all()
    assert z.std().item() == pytest.approx(1, abs=0.05)


def test_mixing_takes_the_first_codes_from_one_z_and_the_rest_from_the_other(prior_learner):
    trained = prior_learner()
    z, _, noise = trained.draw([0, 1])
    generator, num_codes = trained.model.generator, trained.published.num_codes
    whole = trained.model(z, torch.tensor([num_codes, num_codes]), noise)
    torch.testing.assert_close(whole, generator.sample(z[0], noise))
    first, second = generator.codes_of(z[0]), generator.codes_of(z[1])
    mixed = trained.model(z, torch.tensor([2, 2]), noise)
    torch.testing.assert_close(mixed, generator(torch.cat([first[:, :2], second[:, 2:]], dim=1), noise))


def test_stage_zero_resumes_bit_for_bit_and_hands_its_average_to_the_decoder(prior_learner, tmp_path):
    straight, source = prior_learner(), batches()
    values = [straight.train_step(step, source) for step in range(4)]
    assert values[0].keys() == {"loss", "discriminator", "r1", "real_accuracy", "fake_accuracy", "pair_accuracy"}
    average = copy.deepcopy(list(straight.ema.shadow_params))

    broken, source = prior_learner(), batches()
    for step in range(2):
        broken.train_step(step, source)
    checkpoint = tmp_path / "checkpoints" / "step_00000002"
    checkpoint.mkdir(parents=True)
    broken.save(checkpoint)
    resumed = prior_learner()
    resumed.load(checkpoint)
    source = batches(first=8)
    for step in (2, 3):
        ours = resumed.train_step(step, source)
        assert all(torch.equal(ours[name], values[step][name]) for name in ours)
    assert_same(list(resumed.ema.shadow_params), average)

    decoder = fresh_generator().stylegan_decoder
    load_prior(decoder, tmp_path)
    assert_same(weights_of(decoder), list(broken.ema.shadow_params))


def test_a_prior_of_another_size_is_refused(tmp_path):
    save_file(StyleGAN2Generator(8, 8, 1, 2, 1 / 64).state_dict(), tmp_path / "prior.safetensors")
    with pytest.raises(WeightsError, match=r"does not hold the weights of this StyleGAN2Generator: \d+ of \d+ [^\n]+$"):
        load_prior(fresh_generator().stylegan_decoder, tmp_path / "prior.safetensors")
    for name in ("broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(b"not a zip")
        with pytest.raises(WeightsError, match=rf"{name}: is not a complete weights file"):
            load_prior(fresh_generator().stylegan_decoder, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="neither a weights file nor"):
        load_prior(fresh_generator().stylegan_decoder, tmp_path / "nothing")


def test_the_published_prior_layout_is_read(tmp_path):
    torch.manual_seed(5)
    prior = StyleGAN2Generator(SIZE, 8, 1, 2, 1 / 64)
    torch.save({"params_ema": prior.state_dict()}, tmp_path / "prior.pth")
    decoder = fresh_generator().stylegan_decoder
    load_prior(decoder, tmp_path / "prior.pth")
    assert_same(weights_of(decoder), weights_of(prior))


def test_a_prior_of_larger_faces_gives_its_first_levels(tmp_path):
    torch.manual_seed(5)
    prior = StyleGAN2Generator(2 * SIZE, 8, 1, 2, 1 / 64)
    save_file(prior.state_dict(), tmp_path / "prior.safetensors")
    decoder = fresh_generator().stylegan_decoder
    load_prior(decoder, tmp_path / "prior.safetensors")
    theirs = prior.state_dict()
    assert_same(list(decoder.state_dict().values()), [theirs[name] for name in decoder.state_dict()])


def test_a_grown_prior_begins_as_the_smaller_one_enlarged(prior_learner, tmp_path):
    smaller = prior_learner()
    source = batches()
    smaller.train_step(0, source)
    smaller.save(tmp_path / "checkpoints" / "step_00000001")
    torch.manual_seed(6)
    generator = StyleGAN2Generator(2 * SIZE, 8, 1, 2, 1 / 64)
    discriminator = StyleGAN2Discriminator(2 * SIZE, 1, 1 / 64)
    grow(generator, discriminator, tmp_path)

    z = torch.randn(3, 8)
    torch.testing.assert_close(generator.sample(z), upsample(smaller.published.sample(z)))
    theirs = smaller.adversary.model
    colours = (2 * torch.rand(3, 3, 1, 1) - 1).expand(3, 3, 2 * SIZE, 2 * SIZE)
    halved, wanted = discriminator.blocks[0](discriminator.first(colours)), theirs.first(colours[..., ::2, ::2])
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(halved[inside], wanted[inside])
    assert_same(weights_of(discriminator.blocks[1:]), weights_of(theirs.blocks))
    assert_same(weights_of(discriminator.final_linear), weights_of(theirs.final_linear))

    generator.sample(z).square().mean().backward()  # the new level can learn
    assert generator.to_rgbs[-1].modulated_conv.weight.grad.any()

    with pytest.raises(WeightsError, match=rf"is not a prior of faces of {SIZE // 2} px"):
        grow(StyleGAN2Generator(SIZE, 8, 1, 2, 1 / 64), StyleGAN2Discriminator(SIZE, 1, 1 / 64), tmp_path)
    with pytest.raises(WeightsError, match="does not hold the weights of this StyleGAN2Generator"):
        grow(StyleGAN2Generator(2 * SIZE, 8, 1, 2, 1 / 32), discriminator, tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a weights file nor"):
        grow(generator, discriminator, tmp_path / "nothing")


@pytest.mark.parametrize(("most", "share"), [(None, 1.0), (10.0, 1.0), (2.0, 0.4)])
def test_gradients_of_a_large_norm_are_scaled_down_before_adam_sees_them(most: float | None, share: float) -> None:
    accelerator = Accelerator(cpu=True)
    adam = Adam(0.1, (0.0, 0.99), max_grad_norm=most)
    network = torch.nn.Linear(2, 1, bias=False)
    network, optimizer = accelerator.prepare(network, adam.optimizer(network))
    network.weight.grad = torch.tensor([[3.0, 4.0]])  # of norm 5
    adam.step(accelerator, network, optimizer)
    [state] = optimizer.state.values()
    torch.testing.assert_close(state["exp_avg_sq"], 0.01 * (share * torch.tensor([[3.0, 4.0]])) ** 2)
    assert network.weight.grad is None
