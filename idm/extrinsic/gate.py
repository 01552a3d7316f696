"""Decide if x* = f_theta(x) may replace x: it must be better, worse in nothing, and show the same person."""

from dataclasses import dataclass
from typing import Literal

from idm.extrinsic.quality import Quality
from idm.io.errors import InvalidInput

Reason = Literal["no gate", "better", "identity", "softer", "noisier", "blockier", "no better"]


@dataclass(frozen=True)
class Gate:
    """The limits that x* must keep, and the improvement that it needs to replace x. Shares are relative to x.

    Args:
        min_identity: cosine of the MobileFaceNet embeddings of x and x* (without their mirror images), at least; None
            disables this check.
        max_sharpness_loss: share of sharpness that x* may lose.
        max_noise_gain: noise that x* may add, in 1/255.
        max_blockiness_gain: blockiness that x* may add.
        min_sharpness_gain: share of sharpness that makes x* better than x.
        min_noise_loss: loss of noise, in 1/255, that makes x* better.
        min_blockiness_loss: loss of blockiness that makes x* better.
    """

    min_identity: float | None = 0.6
    max_sharpness_loss: float = 0.01
    max_noise_gain: float = 0.3
    max_blockiness_gain: float = 0.15
    min_sharpness_gain: float = 0.02
    min_noise_loss: float = 0.5
    min_blockiness_loss: float = 0.05


@dataclass(frozen=True)
class Decision:
    """Whether x* replaces x, and why."""

    accepted: bool
    reason: Reason


def decide(gate: Gate | None, before: Quality, after: Quality, identity: float | None) -> Decision:
    """Return whether x* (``after``) replaces x (``before``), and why; the first rule that x* breaks is the reason.

    Without a gate every x* replaces x, as in document A: "over all training data".

    Raises:
        ValueError: the gate needs an identity, but none was measured.
    """
    if gate is None:
        return Decision(True, "no gate")
    if gate.min_identity is not None:
        if identity is None:
            raise InvalidInput("the gate's min_identity needs a measured identity")
        if not identity >= gate.min_identity:
            return Decision(False, "identity")
    sharper = (after.sharpness - before.sharpness) / max(before.sharpness, 1e-6)  # a blank picture has none
    if not sharper >= -gate.max_sharpness_loss:
        return Decision(False, "softer")
    if not after.noise - before.noise <= gate.max_noise_gain:
        return Decision(False, "noisier")
    if not after.blockiness - before.blockiness <= gate.max_blockiness_gain:
        return Decision(False, "blockier")
    better = (
        sharper >= gate.min_sharpness_gain
        or before.noise - after.noise >= gate.min_noise_loss
        or before.blockiness - after.blockiness >= gate.min_blockiness_loss
    )
    return Decision(True, "better") if better else Decision(False, "no better")
