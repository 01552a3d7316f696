"""Metrics of identity: distances of MobileFaceNet's features of one face."""

import math

import numpy as np

from idm.data.sources import FaceSource
from idm.evaluation.metric import FaceEmbeddings, Image01, Metric, MetricNetworks, PairMetric, check_images
from idm.io.errors import InvalidInput
from idm.io.known_weights import MOBILEFACENET_WEIGHTS

_FEATURES = (
    "MobileFaceNet embeddings (CASIA-WebFace) of the restored and the original face and their mirror images, "
    "112 x 96, both aligned by the FFHQ landmark template"
)


def build_identity(networks: MetricNetworks) -> PairMetric:
    """Cosine similarity of the embeddings, in [-1, 1]."""
    from idm.faces.recognition import cosine_similarity

    faces = networks.faces

    def identity(restored: Image01, hq: Image01) -> float:
        check_images(restored, hq)
        return float(cosine_similarity(faces(restored)[None], faces(hq)[None])[0])

    return identity


def build_angle(networks: MetricNetworks) -> PairMetric:
    """The angle between the embeddings, in degrees from 0 to 180."""
    identity = build_identity(networks)

    def deg(restored: Image01, hq: Image01) -> float:
        return math.degrees(math.acos(identity(restored, hq)))

    return deg


def nearest_others(source: FaceSource, faces: FaceEmbeddings) -> list[int]:
    """Return, for each face of a source, the index of the most similar other face: a stranger who looks like it.

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
)
