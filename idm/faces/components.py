"""Eyes and mouth: where they are, their crops, and the three discriminators of GFP-GAN's facial component loss.

Left and right are meant as seen in the image. Landmarks are (x, y) in pixels with pixel centres at integers.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import roi_align

from idm.faces.template import ffhq_landmarks
from idm.io.errors import InvalidInput
from idm.io.machine import on_device
from idm.models.critics import FacialComponentDiscriminator

# Side of the crops of a 512 px face (GFPGAN, gfpgan_model.py); of other faces in proportion.
CROP_512 = {"left_eye": 80, "right_eye": 80, "mouth": 120}

# Half the side of a box, in units of the size of the face as FFHQ's alignment measures it. Our choice: on the FFHQ
# template at 512 px the boxes are then as large as the crops.
_HALF_512 = {name: side / 2 for name, side in CROP_512.items()}

# Points of the 68 of FFHQ's landmark file, factor and least half side at 512 px (GFPGAN, parse_landmark.py).
_POINTS_68 = {"left_eye": (36, 42, 1.4), "right_eye": (42, 48, 1.4), "mouth": (48, 68, 1.0)}
_MIN_HALF_512 = 16

Box = Float[Tensor, "b 3"]
"""(x, y, half the side) of a square; its edges lie at x - half and x + half."""
Crops = dict[str, Float[Tensor, "b 3 _ _"]]


def component_boxes(landmarks: Float[Tensor, "b n 2"], image_size: int) -> dict[str, Box]:
    """The box of each component.

    From 68 points the published rule: the mean of the component's points, and half of their greater extent, at
    least 16 px of a 512 px face, eyes 1.4 times that. From five points, which know no extents, our own: centred on
    the eye and between the corners of the mouth, in proportion to max(2 |eye to eye|, 1.8 |eyes to mouth|), by
    which FFHQ's alignment sizes a face; so a turned head keeps its boxes.

    Raises:
        ValueError: neither 5 nor 68 points.
    """
    match landmarks.shape[1]:
        case 5:
            return _boxes_of_five(landmarks)
        case 68:
            least = _MIN_HALF_512 * image_size / 512
            return {name: _box_of_points(landmarks[:, a:b], f, least) for name, (a, b, f) in _POINTS_68.items()}
        case number:
            raise InvalidInput(f"eyes and mouth are found from 5 or 68 landmarks, not from {number}")


def _boxes_of_five(landmarks: Float[Tensor, "b 5 2"]) -> dict[str, Box]:
    left_eye, right_eye, _, left_corner, right_corner = landmarks.unbind(dim=1)
    mouth = (left_corner + right_corner) / 2
    template = torch.from_numpy(ffhq_landmarks(512)).to(landmarks)
    scale = _face_size(landmarks) / _face_size(template[None])
    centres = {"left_eye": left_eye, "right_eye": right_eye, "mouth": mouth}
    return {name: torch.cat([centre, scale * _HALF_512[name]], dim=1) for name, centre in centres.items()}


def _face_size(landmarks: Float[Tensor, "b 5 2"]) -> Float[Tensor, "b 1"]:
    """max(2 |eye to eye|, 1.8 |eyes to mouth|): FFHQ's measure (its dataset's download_ffhq.py)."""
    left_eye, right_eye, _, left_corner, right_corner = landmarks.unbind(dim=1)
    eye_to_eye = right_eye - left_eye
    eyes_to_mouth = (left_corner + right_corner - left_eye - right_eye) / 2
    lengths = [2 * eye_to_eye.norm(dim=1, keepdim=True), 1.8 * eyes_to_mouth.norm(dim=1, keepdim=True)]
    return torch.maximum(*lengths)


def _box_of_points(points: Float[Tensor, "b n 2"], factor: float, least: float) -> Box:
    extent = (points.amax(dim=1) - points.amin(dim=1)).amax(dim=1, keepdim=True)
    return torch.cat([points.mean(dim=1), factor * (extent / 2).clamp(min=least)], dim=1)


def crop(images: Float[Tensor, "b 3 s s"], box: Box, side: int) -> Float[Tensor, "b 3 side side"]:
    """Each image's box as ``side`` x ``side`` pixels, bilinear (ROI-align); differentiable in the images."""
    centre, half = box[:, :2] + 0.5, box[:, 2:]  # the outer edge of the first pixel is ROI-align's 0
    corners = on_device(torch.cat([centre - half, centre + half], dim=1).to(images.dtype), images.device)
    numbered = torch.cat([torch.arange(len(box), device=images.device, dtype=images.dtype)[:, None], corners], dim=1)
    return roi_align(images, numbered, output_size=side, aligned=True)


def crop_components(images: Float[Tensor, "b 3 s s"], boxes: dict[str, Box]) -> Crops:
    """The crops of all components, of sides 80, 80 and 120 for 512 px faces."""
    size = images.shape[-1]
    return {name: crop(images, box, round(CROP_512[name] * size / 512)) for name, box in boxes.items()}


def known_landmarks(
    landmarks: Float[Tensor, "b 5 2"], image_size: int
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b 5 2"]]:
    """1 for each face with landmarks and 0 for one without (nan), and landmarks that are finite for all.

    An unknown face gets the template's, so that shapes and processes stay in step; its weight is zero.
    """
    known = landmarks.isfinite().all(dim=2).all(dim=1)
    template = torch.from_numpy(ffhq_landmarks(image_size)).to(landmarks)
    return known.to(landmarks.dtype), torch.where(known[:, None, None], landmarks, template)


def known_boxes(
    landmarks: Float[Tensor, "b 5 2"], points: Float[Tensor, "b 68 2"] | None, image_size: int
) -> tuple[Float[Tensor, " b"], dict[str, Box]]:
    """1 for each face with landmarks and 0 for one without (nan), and boxes for all: from its 68 points where they
    are known, else from its five."""
    known, landmarks = known_landmarks(landmarks, image_size)
    boxes = component_boxes(landmarks, image_size)
    if points is None:
        return known, boxes
    exact = points.isfinite().all(dim=2).all(dim=1, keepdim=True)
    published = component_boxes(points.to(landmarks), image_size)
    return known, {name: torch.where(exact, published[name], box) for name, box in boxes.items()}


class ComponentDiscriminators(nn.Module):
    """The critics of left eye, right eye and mouth, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.critics = nn.ModuleDict({name: FacialComponentDiscriminator() for name in CROP_512})

    def forward(self, crops: Crops) -> dict[str, tuple[Tensor, tuple[Tensor, Tensor]]]:
        """Return the logits and two feature maps of each component."""
        return {name: self.critics[name](images) for name, images in crops.items()}
