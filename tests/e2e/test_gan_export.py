"""``idm export`` of a GFP-GAN; in a process of its own, where no hook checks shapes: Dynamo cannot trace those."""

from importlib.util import find_spec

import pytest
import torch
from forked import run

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.weights import save_gfpgan


@pytest.mark.skipif(
    any(find_spec(package) is None for package in ("onnx", "onnxscript", "onnxruntime")),
    reason="the packages of the extra onnxruntime are not installed",
)
def test_the_exported_generator_restores_as_the_network_does_with_its_stored_noise(tmp_path) -> None:
    from idm.restorers.export import load_onnxruntime

    torch.manual_seed(0)
    gfpgan = GFPGAN(image_size=16, num_style_feat=8, channel_multiplier=1, num_mlp=1, narrow=1 / 64)
    with torch.no_grad():
        for parameter in gfpgan.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # off their start, where much is zero
    save_gfpgan(gfpgan, tmp_path / "tiny.safetensors")
    path = tmp_path / "gfpgan.onnx"
    done = run(["-m", "idm", "export", str(tmp_path / "tiny.safetensors"), "-o", str(path)])
    assert done.returncode == 0, done.stderr
    assert "differs from PyTorch by at most" in done.stdout
    onnxruntime = load_onnxruntime(path)
    for batch_size in (1, 4):
        x_d = torch.rand(batch_size, 3, 16, 16) * 2 - 1
        with torch.no_grad():
            wanted, _ = gfpgan(x_d)
        found = torch.from_numpy(onnxruntime({"x_d": x_d.numpy()}))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
