"""Metrics of identity: distances of MobileFaceNet's or ArcFace's features of one face."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

from idm.data.sources import FaceSource
from idm.evaluation.metric import FaceEmbeddings, Image01, Metric, MetricNetworks, PairMetric, check_images
from idm.io.errors import InvalidInput
from idm.io.known_weights import ARCFACE_WEIGHTS, MOBILEFACENET_WEIGHTS

_FEATURES = (
    "MobileFaceNet embeddings (CASIA-WebFace) of the restored and the original face and their mirror images, "
    "112 x 96, both aligned by the FFHQ landmark template"
)
_ARCFACE = (
    "features of ArcFace ResNet-18 (GFP-GAN's file) of the restored and the original face: 8-bit grey, whole, resized "
    "to 128 x 128 by OpenCV's bilinear filter"
)


def build_identity(networks: MetricNetworks) -> PairMetric:
    """Cosine similarity of MobileFaceNet's embeddings, in [-1, 1]."""
    return _cosine(networks.faces)


def build_angle(networks: MetricNetworks) -> PairMetric:
    """The angle between MobileFaceNet's embeddings, in degrees from 0 to 180."""
    return _angle(_cosine(networks.faces))


def build_ids(networks: MetricNetworks) -> PairMetric:
    """Cosine similarity of ArcFace's features, in [-1, 1]."""
    return _cosine(networks.arcface)


def build_arcface_angle(networks: MetricNetworks) -> PairMetric:
    """The angle between ArcFace's features, in degrees from 0 to 180.

    Source: metric_paper/calculate_cos_dist.py of TencentARC/VQFR (Gu et al. 2022, arXiv 2205.06803).
    """
    return _angle(_cosine(networks.arcface))


def _cosine(features: Callable[[Image01], Float32[np.ndarray, " d"]]) -> PairMetric:
    from idm.faces.recognition import cosine_similarity

    def cosine(restored: Image01, hq: Image01) -> float:
        check_images(restored, hq)
        return float(cosine_similarity(features(restored)[None], features(hq)[None])[0])

    return cosine


def _angle(cosine: PairMetric) -> PairMetric:
    return lambda restored, hq: math.degrees(math.acos(cosine(restored, hq)))


def nearest_others(source: FaceSource, faces: FaceEmbeddings) -> list[int]:
    """Return, for each face of a source, the index of the most similar other face: a stranger who looks like it.

    Args:
        source: square, aligned faces.

    Raises:
        ValueError: there is only one face.
    """
    from idm.io.ranges import from_uint8

    if len(source) < 2:
        raise InvalidInput("a stranger needs at least two faces")
    features = np.stack([faces(from_uint8(source[i].image)) for i in range(len(source))])
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    return [int(index) for index in similarity.argmax(axis=1)]


METRICS = (
    Metric(
        "identity",
        "Identity",
        "higher",
        "pair",
        f"Cosine similarity of {_FEATURES}.",
        build_identity,
        weights=(MOBILEFACENET_WEIGHTS,),
    ),
    Metric(
        "deg",
        "Deg",
        "lower",
        "pair",
        f"Angle in degrees between {_FEATURES}. Published Deg columns use ArcFace ResNet-18 and drop pairs below 1 "
        "degree: not comparable with this one.",
        build_angle,
        weights=(MOBILEFACENET_WEIGHTS,),
    ),
    Metric(
        "ids",
        "IDS (ArcFace)",
        "higher",
        "pair",
        f"Cosine similarity of {_ARCFACE}.",
        build_ids,
        weights=(ARCFACE_WEIGHTS,),
    ),
    Metric(
        "deg_arcface",
        "Deg (ArcFace)",
        "lower",
        "pair",
        f"Angle in degrees between {_ARCFACE}, as VQFR's script computes it, which leaves out pairs below 1 degree; "
        "none is left out here.",
        build_arcface_angle,
        weights=(ARCFACE_WEIGHTS,),
    ),
)
