"""Metrics of shape: distances of the landmarks of eyes, nose and mouth."""

import numpy as np

from idm.evaluation.metric import Image01, Metric, MetricNetworks, PairMetric, check_images
from idm.io.errors import InvalidInput
from idm.io.known_weights import LANDMARK_WEIGHTS

SIDE = 512  # of the faces that distances are stated for


def build_lmd(networks: MetricNetworks) -> PairMetric:
    """Mean distance of the 98 landmarks of both faces, in pixels of faces of 512 px.

    Its function raises ValueError for images that are not square. Source of the network: X. Wang et al., Adaptive wing
    loss for robust face alignment via heatmap regression, 2019.
    """
    landmarks = networks.landmarks

    def lmd(restored: Image01, hq: Image01) -> float:
        check_images(restored, hq)
        height, width, _ = hq.shape
        if height != width:
            raise InvalidInput(f"landmarks need square aligned faces, got {height} x {width}")
        distances = np.linalg.norm(landmarks(restored) - landmarks(hq), axis=1)
        return float(distances.mean() * SIDE / height)

    return lmd


METRICS = (
    Metric(
        "lmd",
        "LMD",
        "lower",
        "pair",
        "Landmark distance: mean Euclidean distance of the 98 WFLW landmarks that facexlib's AWing network finds in "
        "the restored and the original face, each resized to 256 px; in pixels of faces of 512 px.",
        build_lmd,
        smallest=32,
        weights=(LANDMARK_WEIGHTS,),
        package="facexlib",
    ),
)
