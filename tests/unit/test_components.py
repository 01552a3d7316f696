"""Boxes of eyes and mouth, and what is cut out of them."""

import pytest
import torch

from idm.data.pairs import mirror
from idm.data.sources import Face
from idm.data.synthetic import synthetic_face
from idm.faces.components import (
    CROP_512,
    ComponentDiscriminators,
    component_boxes,
    crop,
    crop_components,
    known_boxes,
    known_landmarks,
)
from idm.faces.template import ffhq_landmarks


def template(size: int) -> torch.Tensor:
    return torch.from_numpy(ffhq_landmarks(size)).float()[None]


# Boxes


def test_on_the_template_at_512_px_the_boxes_are_as_large_as_the_crops():
    boxes = component_boxes(template(512), 512)
    assert {name: 2 * box[0, 2].item() for name, box in boxes.items()} == pytest.approx(CROP_512)
    assert boxes["left_eye"][0, :2].tolist() == pytest.approx([192.98138, 239.94708])
    assert boxes["right_eye"][0, :2].tolist() == pytest.approx([318.90277, 240.1936])
    assert boxes["mouth"][0, :2].tolist() == pytest.approx([(201.26117 + 313.08905) / 2, (371.41043 + 371.15118) / 2])


@pytest.mark.parametrize("size", [64, 128, 256])
def test_boxes_grow_with_the_face(size):
    whole, part = component_boxes(template(512), 512), component_boxes(template(size), size)
    for name in CROP_512:
        assert part[name][0, 2].item() == pytest.approx(whole[name][0, 2].item() * size / 512, rel=1e-5)


def test_a_turned_head_keeps_the_size_of_its_boxes():
    turned = template(512).clone()
    middle = turned[:, :, 0].mean()
    turned[:, :, 0] = middle + 0.4 * (turned[:, :, 0] - middle)  # seen from the side all widths shrink
    boxes, wanted = component_boxes(turned, 512), component_boxes(template(512), 512)
    for name in CROP_512:
        assert boxes[name][0, 2].item() == pytest.approx(wanted[name][0, 2].item(), rel=0.1)


def test_the_published_rule_takes_mean_and_extent_of_68_points():
    points = torch.zeros(1, 68, 2)
    points[0, 36:42] = torch.tensor([(180.0, 240), (190, 230), (200, 230), (230, 240), (200, 246), (190, 246)])
    points[0, 42:48] = torch.tensor([310.0, 240])  # shut to a point: the least box
    points[0, 48:68, 0] = torch.linspace(200, 314, 20)
    points[0, 48:68, 1] = 370
    boxes = component_boxes(points, 512)
    assert boxes["left_eye"][0].tolist() == pytest.approx([1190 / 6, 1432 / 6, 1.4 * 25])
    assert boxes["right_eye"][0].tolist() == pytest.approx([310, 240, 1.4 * 16])
    assert boxes["mouth"][0].tolist() == pytest.approx([257, 370, 57])
    assert component_boxes(points / 4, 128)["right_eye"][0, 2].item() == pytest.approx(1.4 * 4)


def test_another_number_of_points_is_refused():
    with pytest.raises(ValueError, match="from 5 or 68 landmarks, not from 98"):
        component_boxes(torch.zeros(1, 98, 2), 512)


# Crops


def ramp(size: int) -> torch.Tensor:
    """Red is x, green is y, in pixels."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)]).float()[None]


def test_the_crop_of_a_ramp_has_the_coordinates_of_its_pixels():
    box = torch.tensor([[30.0, 21.5, 8.0]])
    cut = crop(ramp(64), box, 4)
    centres = torch.tensor([-6.0, -2.0, 2.0, 6.0])  # of four pixels within -8 .. 8
    torch.testing.assert_close(cut[0, 0], (30 + centres).expand(4, 4))
    torch.testing.assert_close(cut[0, 1], (21.5 + centres)[:, None].expand(4, 4))


def test_a_box_of_whole_pixels_is_cut_out_unchanged():
    image = torch.rand(1, 3, 32, 32)
    box = torch.tensor([[9.5, 14.5, 4.0]])  # pixels 6 .. 13 and 11 .. 18
    torch.testing.assert_close(crop(image, box, 8), image[:, :, 11:19, 6:14])


@pytest.mark.parametrize(("size", "eye", "mouth"), [(64, 10, 15), (128, 20, 30), (512, 80, 120)])
def test_crops_have_the_published_sides_in_proportion(size, eye, mouth):
    crops = crop_components(torch.rand(2, 3, size, size), component_boxes(template(size).expand(2, 5, 2), size))
    sides = {name: tuple(images.shape) for name, images in crops.items()}
    square = {"left_eye": eye, "right_eye": eye, "mouth": mouth}
    assert sides == {name: (2, 3, side, side) for name, side in square.items()}


def test_gradients_reach_the_pixels_of_the_box_and_no_other():
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    crop(image, torch.tensor([[9.5, 14.5, 4.0]]), 8).sum().backward()
    expected = torch.zeros(1, 3, 32, 32)
    expected[:, :, 11:19, 6:14] = 1
    torch.testing.assert_close(image.grad, expected)


def cut(face: Face) -> dict[str, torch.Tensor]:
    image = torch.from_numpy(face.image.copy()).permute(2, 0, 1).float()[None]
    landmarks = torch.from_numpy(face.landmarks)[None]
    return crop_components(image, component_boxes(landmarks, image.shape[-1]))


def test_the_left_eye_of_a_mirrored_face_is_its_right_eye_mirrored():
    drawn = synthetic_face(0, 3, 64)
    face = Face(drawn.image, drawn.landmarks, "face")
    ours, mirrored = cut(face), cut(mirror(face))
    for name, other in {"left_eye": "right_eye", "right_eye": "left_eye", "mouth": "mouth"}.items():
        torch.testing.assert_close(mirrored[name], ours[other].flip(-1), rtol=0, atol=1e-2)
    assert (ours["left_eye"] - ours["right_eye"]).abs().mean() > 1


def test_the_left_eye_is_the_one_on_the_left_of_the_image():
    boxes = component_boxes(template(512), 512)
    assert boxes["left_eye"][0, 0] < boxes["right_eye"][0, 0]


# Unknown landmarks


def test_a_face_without_landmarks_is_known_by_weight_zero_and_stays_finite():
    landmarks = torch.cat([template(64) + 1, torch.full((1, 5, 2), torch.nan)])
    known, finite = known_landmarks(landmarks, 64)
    assert known.tolist() == [1.0, 0.0]
    torch.testing.assert_close(finite, torch.cat([template(64) + 1, template(64)]))


def test_boxes_come_from_68_points_where_they_are_known_and_else_from_five():
    rng = torch.Generator().manual_seed(0)
    points = torch.rand(3, 68, 2, generator=rng) * 64
    points[1:] = torch.nan
    landmarks = torch.cat([template(64), template(64) + 1, torch.full((1, 5, 2), torch.nan)])
    known, boxes = known_boxes(landmarks, points, 64)
    assert known.tolist() == [1.0, 1.0, 0.0]
    published, five = component_boxes(points[:1], 64), component_boxes(template(64), 64)
    for name, box in boxes.items():
        torch.testing.assert_close(box[0], published[name][0])
        torch.testing.assert_close(box[1], five[name][0] + torch.tensor([1.0, 1.0, 0.0]))
        torch.testing.assert_close(box[2], five[name][0])
    _, without = known_boxes(landmarks, None, 64)
    torch.testing.assert_close(without["mouth"][0], five["mouth"][0])


def test_each_component_has_a_critic_of_its_own():
    torch.manual_seed(0)
    critics = ComponentDiscriminators()
    crops = {name: torch.rand(2, 3, 12, 12) for name in CROP_512}
    outputs = critics(crops)
    for name, (logits, maps) in outputs.items():
        alone, alone_maps = critics.critics[name](crops[name])
        torch.testing.assert_close(logits, alone)
        torch.testing.assert_close(maps, alone_maps)
    assert len({id(critic) for critic in critics.critics.values()}) == 3
