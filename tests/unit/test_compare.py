"""Several restorers on the same faces: rows, sizes, seeds and seconds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from idm.data.pairs import FrozenPairs
from idm.data.sources import SyntheticFaces
from idm.degradation import GFPGAN
from idm.degradation.operations import Interpolation
from idm.degradation.steps import Resize
from idm.evaluation.compare import (
    SEEDS_APART,
    Measured,
    ResizedRestorer,
    breakdown,
    compare,
    differences,
    diversity,
    table_rows,
)
from idm.evaluation.engine import evaluate
from idm.evaluation.kept import KeptFaces
from idm.evaluation.metrics import psnr, ssim
from idm.evaluation.sets import SetScores
from idm.evaluation.tables import render_breakdown, render_comparison
from idm.io.ranges import from_uint8

METRICS = {"psnr": psnr, "ssim": ssim}


class Brighter:
    """Adds to every face a constant that depends on its seed."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self.seen: list[tuple[int, ...]] = []

    def restore(self, lq, seeds):
        assert lq.shape[-1] == self.image_size
        self.seen += [tuple(face.shape) for face in lq]
        return torch.stack([(face + seed / 1e3).clamp(0, 1) for face, seed in zip(lq, seeds, strict=True)])


def frozen(size: int, num_faces: int = 5, enlarge: Interpolation = "bilinear") -> FrozenPairs:
    return FrozenPairs(SyntheticFaces(num_faces, 3, size), GFPGAN.change(Resize, interpolation=enlarge), 7)


def compared(restorers, size=32):
    pairs = frozen(size)
    return list(compare(restorers, pairs, frozen(size, enlarge="bicubic"), METRICS, batch_size=2, seed=11))


def test_a_restorer_scores_in_a_comparison_as_it_does_alone():
    alone = list(evaluate(Brighter(32), frozen(32), METRICS, indices=range(5), batch_size=3, seed=11))
    together = compared({"other": Brighter(32), "mine": Brighter(32)})
    assert [face.measured.scores["mine"] for face in together] == [row.restored_scores for row in alone]
    assert [face.measured.scores["degraded"] for face in together] == [row.degraded_scores for row in alone]


def test_a_face_is_drawn_with_its_own_seed_whichever_faces_are_chosen():
    everything, some = (
        list(evaluate(Brighter(32), frozen(32), METRICS, indices=indices, batch_size=2, seed=11))
        for indices in (range(5), [4, 1, 3])
    )
    for row, index in zip(some, (4, 1, 3), strict=True):
        np.testing.assert_array_equal(row.restored, everything[index].restored)


def test_bicubic_is_the_same_degraded_face_enlarged_otherwise():
    bicubic = frozen(32, enlarge="bicubic")
    for i, face in enumerate(compared({"a": Brighter(32)})):
        np.testing.assert_array_equal(face.images["bicubic"], bicubic[i].lq)
        difference = np.abs(face.images["bicubic"].astype(int) - face.images["degraded"].astype(int))
        assert 0 < difference.mean() < 20


def test_a_restorer_of_another_size_gets_faces_of_its_size_and_is_measured_at_the_pairs():
    large = Brighter(64)
    (first, *_) = compared({"large": large})
    assert set(large.seen) == {(3, 64, 64)}
    assert first.images["large"].shape == (32, 32, 3)


def test_resizing_there_and_back_keeps_a_smooth_face():
    ramp = torch.linspace(0.2, 0.8, 32).expand(1, 3, 32, 32)

    class Same:
        image_size = 64

        def restore(self, lq, seeds):
            return lq

    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(ResizedRestorer(Same(), 32).restore(ramp, [0])[inner], ramp[inner], atol=2e-3, rtol=0)


def test_a_face_is_shrunk_with_antialiasing():
    class Spy:
        image_size = 8

        def restore(self, lq, seeds):
            self.seen = lq
            return lq

    spy, noise = Spy(), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ResizedRestorer(spy, 64).restore(noise, [0])
    assert spy.seen.std() < 0.3 * noise.std()  # 0.7 without


def test_the_seconds_of_a_row_are_the_median():
    faces = [Measured(str(i), {"a": {}}, {"a": seconds}) for i, seconds in enumerate((1.0, 2.0, 30.0))]
    assert table_rows(faces, SetScores({}), {"a": {}})[0]["seconds_per_image"] == 2


def test_rows_hold_means_over_all_faces_and_what_is_known_of_each_restorer():
    faces = compared({"mine": Brighter(32)})
    rows = table_rows([face.measured for face in faces], SetScores({}), {"mine": {"parameters": 12}})
    assert [row["label"] for row in rows] == ["degraded", "bicubic", "mine"]
    assert rows[2]["metrics"]["psnr"]["mean"] == pytest.approx(
        np.mean([face.measured.scores["mine"]["psnr"] for face in faces])
    )
    assert rows[2]["parameters"] == 12
    assert rows[2]["seconds_per_image"] > 0
    assert "seconds_per_image" not in rows[0]


class Brightness:
    """Describes an image by its mean, and compares the means of all."""

    num_features = 4

    def features(self, image):
        return image.mean()

    def compare(self, restored, originals):
        return np.mean(restored) - np.mean(originals)


def brightness_of(faces) -> SetScores:
    sets = SetScores({"frechet": Brightness()})
    for face in faces:
        sets.add(face.images)
    return sets


def test_a_metric_of_whole_sets_sees_all_faces_of_a_method_beside_all_originals():
    faces = compared({"mine": Brighter(32)})
    rows = table_rows([face.measured for face in faces], brightness_of(faces), {})
    for row in rows:
        images, originals = ([face.images[name] for face in faces] for name in (row["label"], "original"))
        difference = np.mean(images) - np.mean(originals)
        assert row["metrics"]["frechet"] == {
            "mean": pytest.approx(difference),
            "low": None,
            "high": None,
            "n": 5,
            "d": 4,
        }
    assert len({row["metrics"]["frechet"]["mean"] for row in rows}) == 3


def test_every_method_is_a_line_of_the_table():
    faces = compared({"mine": Brighter(32)})
    rows = table_rows([face.measured for face in faces], brightness_of(faces), {"mine": {"parameters": 1_234_567}})
    result = {
        "rows": rows,
        "batch_size": 2,
        "num_images": 5,
        "data": "synthetic",
        "seed": 7,
        "size": 32,
        "preset": "gfpgan",
        "commit": "0" * 40,
        "machine": {"processor": "p", "threads": 1},
        "versions": {"torch": "2"},
        "protocol": dict.fromkeys(("psnr", "ssim", "frechet"), "as ever."),
        "missing": {"lpips": "no weights"},
    }
    table = render_comparison(result)
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["degraded", "bicubic", "mine"]
    assert lines[-1].endswith("| 1.23 M |")
    assert [cell.strip() for cell in lines[0].split("|")][2:6] == ["PSNR ↑", "SSIM ↑", "LPIPS ↓", "Frechet ↓"]
    for line, row in zip(lines[2:], rows, strict=True):
        mean = row["metrics"]["frechet"]["mean"]
        assert line.split("|")[4].strip() == "–"
        assert line.split("|")[5].strip() in (f"{mean:.2f}", f"{mean:.4f}")
    assert "- LPIPS: not measured: no weights." in table
    assert "cannot rank" not in table  # 5 faces, 4 features
    for row in rows:
        row["metrics"]["frechet"]["d"] = 5
    assert "Frechet cannot rank these rows: 5 faces do not determine the covariance of 5 features" in render_comparison(
        result
    )


def test_every_two_restorers_have_their_paired_difference():
    faces = [face.measured for face in compared({"a": Brighter(32), "b": Brighter(32), "c": Brighter(64)})]
    rows = differences(faces, ["a", "b", "c"])
    assert [(row["a"], row["b"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert rows[0]["metrics"]["psnr"] == {"mean": 0, "low": 0, "high": 0, "n": 5}
    assert rows[1]["metrics"] == rows[2]["metrics"]
    wanted = np.mean([face.scores["a"]["ssim"] - face.scores["c"]["ssim"] for face in faces])
    assert rows[1]["metrics"]["ssim"]["mean"] == pytest.approx(wanted)


def test_a_breakdown_parts_the_faces_by_their_tags_and_by_strength():
    faces = [face.measured for face in compared({"a": Brighter(32)})]
    keys = [face.key for face in faces]
    parts = breakdown(faces, {"source": dict.fromkeys(keys[:2], "x") | dict.fromkeys(keys[2:4], "y"), "group": {}})
    assert {name: list(values) for name, values in parts.items()} == {
        "source": ["x", "y"],
        "strength": ["weak", "medium", "strong"],
    }
    [_, _, row] = parts["source"]["y"]
    assert row["label"] == "a"
    assert row["metrics"]["psnr"]["mean"] == pytest.approx(np.mean([f.scores["a"]["psnr"] for f in faces[2:4]]))
    degraded = [parts["strength"][name][0]["metrics"]["psnr"] for name in ("weak", "medium", "strong")]
    assert [value["n"] for value in degraded] == [2, 2, 1]
    assert degraded[0]["mean"] > degraded[1]["mean"] > degraded[2]["mean"]
    assert "| y (2) | a |" in render_breakdown({"breakdown": parts})


def test_a_stranger_is_another_clean_face_measured_against_the_original():
    pairs, strangers = frozen(32), [1, 2, 3, 4, 0]
    bicubic = frozen(32, enlarge="bicubic")
    faces = list(compare({}, pairs, bicubic, METRICS, batch_size=2, seed=0, strangers=strangers))
    for i, face in enumerate(faces):
        np.testing.assert_array_equal(face.images["stranger"], pairs.source[strangers[i]].image)
        assert face.measured.scores["stranger"]["psnr"] < face.measured.scores["degraded"]["psnr"]


class Fragile(Brighter):
    """Breaks at the third batch, once."""

    broken = False

    def restore(self, lq, seeds):
        if len(self.seen) >= 4 and not self.broken:
            self.broken = True
            raise KeyboardInterrupt
        return super().restore(lq, seeds)


def test_a_stopped_comparison_resumes_to_the_same_numbers_and_pixels(tmp_path):
    whole = compared({"a": Brighter(32)})
    restorer, pairs = Fragile(32), frozen(32)
    arguments = ({"a": restorer}, pairs, frozen(32, enlarge="bicubic"))
    kept = {"a": KeptFaces(tmp_path, {"weights": 1})}
    options = {"batch_size": 2, "seed": 11, "kept": kept}
    with pytest.raises(KeyboardInterrupt):
        list(compare(*arguments, {"psnr": psnr}, **options))
    assert len(list(tmp_path.rglob("*.npz"))) == 4
    resumed = list(compare(*arguments, METRICS, **options))  # with one metric more
    assert len(restorer.seen) == 5  # the four kept faces are not restored again
    for one, other in zip(resumed, whole, strict=True):
        assert one.measured.scores == other.measured.scores
        np.testing.assert_array_equal(one.images["a"], other.images["a"])
    list(compare(*arguments, METRICS, **{**options, "kept": {"a": KeptFaces(tmp_path, {"weights": 2})}}))
    assert len(restorer.seen) == 10  # those of other weights are not taken
    assert kept["a"].load(pairs[1]) is not None
    for name in ("lq", "hq"):
        other = replace(pairs[1], **{name: getattr(pairs[2], name)})
        assert kept["a"].load(other) is None  # nor those of other pixels


def test_faces_are_kept_where_only_sets_are_measured_too(tmp_path):
    pairs, kept = frozen(32), {"a": KeptFaces(tmp_path, {}), "degraded": KeptFaces(tmp_path, {"label": "degraded"})}
    restorer = Brighter(32)
    faces = list(compare({"a": restorer}, pairs, None, {}, batch_size=2, seed=11, kept=kept))
    for i, face in enumerate(faces):
        for label, one in kept.items():
            np.testing.assert_array_equal(one.load(pairs[i]).image, face.images[label])
    list(compare({"a": restorer}, pairs, None, {}, batch_size=2, seed=11, kept=kept))
    assert len(restorer.seen) == 5


def test_the_faces_of_a_comparison_are_the_degraded_originals():
    for face in compared({"a": Brighter(32)}):
        again = psnr(from_uint8(face.images["degraded"]), from_uint8(face.images["original"]))
        assert again == face.measured.scores["degraded"]["psnr"]


class OnAGPU:
    """Faces that are computed when they are asked for, which takes three seconds."""

    image_size = 32

    def __init__(self, clock) -> None:
        self.clock = clock

    def restore(self, lq, seeds):
        self.faces = lq
        return self

    def cpu(self):
        self.clock.now += 3.0
        return self.faces


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_seconds_of_a_face_last_until_it_is_on_the_cpu(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("idm.evaluation.engine.perf_counter", clock)
    rows = list(evaluate(OnAGPU(clock), frozen(32, 4), METRICS, indices=range(4), batch_size=2, seed=0))
    assert [row.seconds for row in rows] == [1.5] * 4
    assert [face.measured.seconds for face in compared({"a": OnAGPU(clock)})] == [{"a": 1.5}] * 4 + [{"a": 3.0}]


def test_scores_of_several_samples_are_their_means_and_their_diversity_is_that_of_the_pixels():
    class Drawn(Brighter):
        """Adds noise that depends on the seed."""

        def restore(self, lq, seeds):
            noise = [
                torch.randn(face.shape, generator=torch.Generator().manual_seed(s))
                for face, s in zip(lq, seeds, strict=True)
            ]
            return (lq * 0.5 + 0.25 + 0.02 * torch.stack(noise)).clamp(0, 1)

    pairs = frozen(32)
    arguments = (pairs, frozen(32, enlarge="bicubic"), METRICS)
    many = list(compare({"a": Drawn(32), "b": Drawn(32)}, *arguments, batch_size=2, seed=11, samples={"a": 3, "b": 1}))
    each = [list(compare({"a": Drawn(32)}, *arguments, batch_size=2, seed=11 + k * SEEDS_APART)) for k in range(3)]
    for i, face in enumerate(many):
        for name in METRICS:
            assert face.measured.scores["a"][name] == np.mean([run[i].measured.scores["a"][name] for run in each])
        assert face.measured.scores["b"] == each[0][i].measured.scores["a"]
        np.testing.assert_array_equal(face.images["a"], each[0][i].images["a"])
        assert set(face.measured.diversity) == {"a"}
        assert face.measured.diversity["a"] == pytest.approx(0.02 * 255, rel=0.05)
    rows = table_rows([face.measured for face in many], SetScores({}), {"a": {}, "b": {}})
    assert [row["label"] for row in rows if "diversity" in row] == ["a"]
    assert rows[2]["diversity"]["mean"] == pytest.approx(np.mean([face.measured.diversity["a"] for face in many]))


def test_diversity_is_the_deviation_of_a_value_over_the_samples():
    zero = np.zeros((4, 4, 3), np.uint8)
    assert diversity([zero, zero, zero]) == 0
    assert diversity([zero, zero + np.uint8(10)]) == pytest.approx(10 / 2**0.5)


def test_processes_that_share_the_faces_leave_nothing_to_restore(tmp_path):
    whole = compared({"a": Brighter(32)})
    arguments = (frozen(32), frozen(32, enlarge="bicubic"), METRICS)
    kept = {label: KeptFaces(tmp_path, {"label": label}) for label in ("a", "degraded", "bicubic")}
    shares = [
        list(compare({"a": Brighter(32)}, *arguments, batch_size=2, seed=11, kept=kept, share=(which, 2)))
        for which in range(2)
    ]
    assert [[face.measured.key for face in share] for share in shares] == [
        [whole[i].measured.key for i in indices] for indices in ((0, 1, 4), (2, 3))
    ]
    idle = Brighter(32)
    merged = list(compare({"a": idle}, *arguments, batch_size=2, seed=11, kept=kept))
    assert idle.seen == []
    assert [face.measured.scores for face in merged] == [face.measured.scores for face in whole]
    for one, other in zip(merged, whole, strict=True):
        for label, image in one.images.items():
            np.testing.assert_array_equal(image, other.images[label])
