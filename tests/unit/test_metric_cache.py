"""Scores and features outlive the process: nothing is computed twice, and nothing outdated or damaged is returned."""

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from idm.data.synthetic import synthetic_face
from idm.evaluation import cache as cache_module
from idm.evaluation import metrics as metrics_module
from idm.evaluation.cache import KnownValues, MetricCache, identify
from idm.evaluation.metric import Metric, MetricNetworks
from idm.evaluation.metrics import build_metrics
from idm.io.ranges import from_uint8

FACES = [from_uint8(synthetic_face(0, i, 16).image) for i in range(3)]
ZERO = np.zeros(1, np.float32)


class Counted:
    """The mean of an image, and how often it was computed."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *images: np.ndarray) -> float:
        self.calls += 1
        return float(np.mean(images[0])) + 2.0


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "some.pth"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def build(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Counted]:
    """Builds and calls a metric as a run of its own would, and returns the count of its computations."""

    def run(*faces: np.ndarray, name: str = "lpips", kind: str = "pair", hq: np.ndarray = FACES[0]) -> Counted:
        counted = Counted()
        row = Metric(name, "Mean", "lower", kind, "Mean.", lambda _: counted, weights=(weights.name,))
        monkeypatch.setitem(metrics_module.METRICS, name, row)
        built = build_metrics([name], weights_dir=tmp_path, cache=MetricCache(tmp_path / "home" / "metrics.sqlite"))
        for face in faces:
            assert built.each[name](face, hq) == float(np.mean(face)) + 2.0
        return counted

    return run


def test_a_second_run_computes_only_what_is_new(build) -> None:
    assert build(*FACES[:2]).calls == 2
    assert build(*FACES[:2]).calls == 0
    assert build(*FACES).calls == 1


def test_other_pixels_another_original_or_another_shape_are_computed(build) -> None:
    build(FACES[0])
    changed = FACES[0].copy()
    changed[3, 4, 1] = np.nextafter(changed[3, 4, 1], np.float32(1))
    assert build(changed).calls == 1
    assert build(FACES[0], hq=FACES[1]).calls == 1
    assert build(FACES[0].reshape(8, 32, 3)).calls == 1


def test_a_metric_without_reference_does_not_depend_on_the_original(build) -> None:
    build(FACES[0], kind="single")
    assert build(FACES[0], kind="single", hq=FACES[1]).calls == 0


def test_another_metric_weights_file_version_or_code_is_computed(build, weights, monkeypatch) -> None:
    build(FACES[0])
    assert build(FACES[0], name="dists").calls == 1
    assert build(FACES[0]).calls == 0
    monkeypatch.setattr(cache_module, "_code", lambda: "edited")
    assert build(FACES[0]).calls == 1
    monkeypatch.setattr("idm.io.machine.PACKAGES", ("numpy",))  # as if others had come or gone
    assert build(FACES[0]).calls == 1
    assert build(FACES[0]).calls == 0
    weights.write_bytes(b"Weights")
    assert build(FACES[0]).calls == 1


def test_the_identity_names_the_device_and_the_threads(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = identify("a", [weights], "cpu")
    assert identify("a", [weights], "cuda:0") != plain
    monkeypatch.setattr("torch.get_num_threads", lambda: 77)
    assert identify("a", [weights], "cpu") != plain


def test_without_a_cache_no_file_is_made_and_no_metric_is_wrapped(build, tmp_path: Path) -> None:
    counted = build()
    assert build_metrics(["lpips"], weights_dir=tmp_path).each["lpips"] is counted
    assert not (tmp_path / "home").exists()


def test_features_are_kept_with_their_shape_and_kind(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((2, 98)).astype(np.float32)
    path = tmp_path / "metrics.sqlite"
    KnownValues("a", MetricCache(path)).get([ZERO], lambda: features)
    again = KnownValues("a", MetricCache(path)).get([ZERO], lambda: pytest.fail("is known"))
    np.testing.assert_array_equal(again, features)
    assert again.dtype == features.dtype


def test_a_face_is_embedded_once_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from idm.faces import recognition

    embedded = []

    class Network:
        def embed(self, images, landmarks):
            embedded.extend(images)
            return np.ones((len(images), 4), np.float32)

    monkeypatch.setattr(recognition, "load_identity", lambda weights, device: Network())
    (tmp_path / recognition.MOBILEFACENET_WEIGHTS).write_bytes(b"weights")
    for _ in range(2):
        faces = MetricNetworks(tmp_path, "cpu", MetricCache(tmp_path / "metrics.sqlite")).faces
        faces(FACES[0])
    assert len(embedded) == 1


# --- damage


def test_a_damaged_value_is_reported_and_computed_again(build, tmp_path: Path, capsys) -> None:
    build(*FACES)
    path = tmp_path / "home" / "metrics.sqlite"
    with sqlite3.connect(path) as connection:
        [(key, stored)] = connection.execute("SELECT key, value FROM metric_values LIMIT 1").fetchall()
        flipped = stored[:-1] + bytes([stored[-1] ^ 1])
        connection.execute("UPDATE metric_values SET value = ? WHERE key = ?", (flipped, key))
    assert build(*FACES).calls == 1
    assert capsys.readouterr().err == f"warning: {path}: a value is damaged and is computed again\n"
    assert build(*FACES).calls == 0


@pytest.mark.parametrize("content", [b"no database, but long enough to be one" * 40, None])
def test_a_file_that_cannot_be_used_is_reported_once_and_stops_nothing(build, tmp_path, capsys, content) -> None:
    path = tmp_path / "home" / "metrics.sqlite"
    if content is None:
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_bytes(content)
    assert build(*FACES).calls == 3
    error = capsys.readouterr().err
    assert error.startswith(f"warning: {path}: cannot be used (")
    assert error.count("\n") == 1
    assert content is None or path.read_bytes() == content


def test_a_file_cut_short_stops_nothing(build, tmp_path: Path) -> None:
    build(*FACES)
    path = tmp_path / "home" / "metrics.sqlite"
    whole = path.read_bytes()
    for length in (0, 100, 4096, 5000, len(whole) - 1):
        path.write_bytes(whole[:length])
        build(*FACES)  # asserts the values


# --- several processes


def fill(path: Path, start: int) -> None:
    """A process that reads and writes 200 values, half of them those of the other one."""
    values = KnownValues("a", MetricCache(path))
    for i in range(start, start + 200):
        value = values.get([np.array([i])], lambda i=i: np.full(50, i))
        assert (value == i).all()


def fill_and_die(path: Path) -> None:
    """A process that is killed with its file open."""
    values = KnownValues("a", MetricCache(path))
    for i in range(20):
        values.get([np.array([i])], lambda i=i: np.full(50, i))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_loses_nothing_that_it_computed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sqlite"
    process = multiprocessing.get_context("fork").Process(target=fill_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    values = KnownValues("a", MetricCache(path))
    for i in range(20):
        assert (values.get([np.array([i])], lambda: pytest.fail("is known")) == i).all()


def test_two_processes_at_once_leave_every_value_whole(tmp_path: Path, capfd) -> None:
    path = tmp_path / "metrics.sqlite"
    processes = [multiprocessing.get_context("fork").Process(target=fill, args=(path, start)) for start in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    values = KnownValues("a", MetricCache(path))
    for i in range(300):
        assert (values.get([np.array([i])], lambda: pytest.fail("is known")) == i).all()
    assert "warning" not in capfd.readouterr().err
