"""The bundled model's output on a ramp of colours, as printed before sampling was rewritten (float32, seed 7).

In 8 bits no pixel of it, nor of two degraded synthetic faces, moved; in float32 the levels' last digits did (1e-6).
"""

from pathlib import Path

import torch

from idm.restorers.saved import load_idm


def test_the_bundled_model_restores_as_it_was_published():
    x = torch.linspace(0, 1, 128)
    ramp = torch.stack([x[None].expand(128, 128), x[:, None].expand(128, 128), x[None] * x[:, None]])[None]
    restored = load_idm(Path("idm-faces-128"), torch.device("cpu"), torch.float32).restore(ramp, [7])
    found = torch.stack([restored[0, :, 16, 16], restored[0, :, 100, 40], restored[0, :, 64, 64]])
    wanted = [
        [0.1005982, 0.0817119, 0.0923213],
        [0.3378242, 0.4958908, 0.4024726],
        [0.4304777, 0.4141941, 0.3784854],
    ]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=0, atol=1e-4)
    summary = torch.stack([restored.mean(), restored.std()])
    torch.testing.assert_close(summary, torch.tensor([0.4131536, 0.2083045]), rtol=0, atol=1e-5)
