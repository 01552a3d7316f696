"""Identity of faces: cosine similarity of MobileFaceNet embeddings of aligned faces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

from idm.faces.align import warp
from idm.faces.mobilefacenet import FEATURES, HEIGHT, WIDTH, MobileFaceNet, fold_norms
from idm.faces.template import umeyama
from idm.io.errors import InvalidInput
from idm.io.known_weights import MOBILEFACENET_WEIGHTS
from idm.io.weights import find_weights

# The alignment that MobileFaceNet (as SphereFace) was trained with: (x, y) in a crop 112 high, 96 wide.
IDENTITY_LANDMARKS = np.array(
    [(30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041)]
)


def align_for_identity(
    image: Float32[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "5 2"]
) -> Float32[np.ndarray, "112 96 3"]:
    """Crop a face so that its landmarks are mapped to ``IDENTITY_LANDMARKS``.

    The crop is the antialiased, bilinear :func:`idm.faces.align.warp`: outside the picture the nearest edge pixel
    continues, because black would be an edge that no face has.

    Args:
        image: RGB in [0, 1].
        landmarks: (x, y) of left eye, right eye, nose, left and right mouth corner as seen in the image;
            (0, 0) is the centre of the first pixel.

    Raises:
        ValueError: landmarks are not finite or coincide.
    """
    return warp(image, umeyama(landmarks, IDENTITY_LANDMARKS), (HEIGHT, WIDTH))


@dataclass(frozen=True)
class IdentityNet:
    """A frozen face-recognition network on a device. Build it with :func:`load_identity`.

    Without ``mirrored`` the mirror image is left out: half the cost and half the features, but the values differ from
    those of the tables, as they do with a ``dtype`` (of the network) other than float32.
    """

    network: MobileFaceNet
    device: str = "cpu"
    batch_size: int = 32
    mirrored: bool = True
    dtype: torch.dtype = torch.float32

    def embed(
        self,
        images: Sequence[Float32[np.ndarray, "_ _ 3"]],
        landmarks: Sequence[Float[np.ndarray, "5 2"]] | Float[np.ndarray, "n 5 2"],
    ) -> Float32[np.ndarray, "n d"]:
        """Unit vectors, one per face: the features of the aligned face and of its mirror image, joined (d = 256), or
        without ``mirrored`` of the face alone (d = 128).

        Args:
            images: RGB in [0, 1], of any sizes.
            landmarks: five points per image as in :func:`align_for_identity`.

        Raises:
            ValueError: as many landmarks as images are needed, or a face cannot be aligned.
        """
        if len(images) != len(landmarks):
            raise InvalidInput(f"got {len(images)} images but landmarks of {len(landmarks)} faces")
        crops = [align_for_identity(*face) for face in zip(images, landmarks, strict=True)]
        starts = range(0, len(crops), self.batch_size)
        batches = [torch.from_numpy(np.stack(crops[i : i + self.batch_size])) for i in starts]
        features = [self._features(rearrange(batch, "b h w c -> b c h w")) for batch in batches]
        width = FEATURES * (2 if self.mirrored else 1)
        return torch.cat([torch.empty(0, width), *features]).numpy()

    @torch.inference_mode()
    def _features(self, faces: Float[Tensor, "b 3 112 96"]) -> Float[Tensor, "b d"]:
        x = ((faces * 255 - 127.5) / 128).to(self.device, self.dtype)
        views = torch.cat([x, x.flip(-1)]) if self.mirrored else x
        features = torch.cat(self.network(views).split(len(x)), dim=1)
        return F.normalize(features.float(), dim=1).cpu()


def load_identity(
    weights: Path | None = None, device: str = "cpu", mirrored: bool = True, dtype: torch.dtype = torch.float32
) -> IdentityNet:
    """The identity network of the tables: MobileFaceNet trained on CASIA-WebFace (research use only).

    Args:
        weights: ``mobilefacenet_casia.safetensors`` or its folder; by default searched as
            :func:`idm.io.weights.find_weights` says.
        device: where it runs, such as "cpu" or "cuda:0".
        mirrored, dtype: see :class:`IdentityNet`.

    Raises:
        FileNotFoundError: the file is missing; says where to put it.
        ValueError: the file is broken or holds another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = find_weights(MOBILEFACENET_WEIGHTS, weights)
    network = MobileFaceNet()
    try:
        network.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise InvalidInput(f"{path}: does not hold the weights of MobileFaceNet ({error})") from error
    fold_norms(network.eval().requires_grad_(False))
    network = network.to(device, dtype).to(memory_format=torch.channels_last)
    return IdentityNet(network, device, mirrored=mirrored, dtype=dtype)


def find_identity(
    weights: Path | None, device: str, on_missing: Callable[[FileNotFoundError], None]
) -> IdentityNet | None:
    """:func:`load_identity`; None after a call of ``on_missing`` if its weights are missing."""
    try:
        return load_identity(weights, device)
    except FileNotFoundError as error:
        on_missing(error)
        return None


def cosine_similarity(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """Cosine of the angle between corresponding rows, in [-1, 1]; near 1 for the same person.

    Raises:
        ValueError: a row is zero or not finite.
    """
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise InvalidInput("cosine needs finite vectors other than zero")
    return np.clip((a * b).sum(axis=1) / norms, -1, 1)
