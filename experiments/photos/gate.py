"""How often does the gate of photographs reject, and would what it rejects have been better?

    IDM_ASSETS=... python experiments/photos/gate.py

Degrades 24 faces of `val` by each preset, restores them by the bundled model with the given face's colours, as
``idm restore`` does, and prints for each preset the mean gain in PSNR of all faces and behind the gate, the share that
is accepted, the share of all that loses more than .1 dB, and quantiles of the rise in noise.
"""

import numpy as np
import torch

from idm.apps.photo.harm import _qualities, change_share, judge
from idm.data.pairs import FrozenPairs, collate
from idm.data.sources import FolderFaces, assets_folder
from idm.degradation import PRESETS
from idm.evaluation.pixels import psnr
from idm.faces.colour import match_colour
from idm.faces.paste import crop_weights
from idm.io.machine import best_device, inference_dtype
from idm.io.ranges import chw_to_hwc, from_uint8, to_uint8
from idm.restorers.saved import load_idm

SEED, STEP, NUM_FACES = 77, 5, 120


@torch.inference_mode()
def main() -> None:
    model = load_idm(None, best_device(), inference_dtype(best_device()))
    size = model.image_size
    faces, weights = FolderFaces(assets_folder() / "faces256" / "val", size), crop_weights(size).astype(np.float32)
    for preset in ("mild", "gfpgan", "diffbir", "difface", "codeformer_stage2"):
        pairs, gains, accepted, noise = FrozenPairs(faces, PRESETS[preset], SEED), [], [], []
        for index in range(0, NUM_FACES, STEP):
            pair = pairs[index]
            given, hq = from_uint8(pair.lq), from_uint8(pair.hq)
            [face] = to_uint8(model.restore(from_uint8(collate([pair]).lq), [index]).cpu())
            restored = np.clip(match_colour(from_uint8(chw_to_hwc(face)), given, weights, "wavelet"), 0, 1)
            changed = (given + change_share(given, restored) * (restored - given)).astype(np.float32)
            before, after = _qualities(to_uint8(given), to_uint8(changed))
            gains.append(psnr(changed, hq) - psnr(given, hq))
            accepted.append(judge(given, restored.astype(np.float32)).share > 0)
            noise.append(after.noise - before.noise)
        gain, taken = np.array(gains), np.array(accepted)
        rise = np.quantile(noise, [0.1, 0.5, 0.9]).round(2)
        print(
            f"{preset:18} all {gain.mean():+.2f} dB, gated {(gain * taken).mean():+.2f} dB, "
            f"accepted {taken.mean():.2f}, lose .1 dB {(gain < -0.1).mean():.2f}, noise rises by {rise}",
            flush=True,
        )


if __name__ == "__main__":
    main()
