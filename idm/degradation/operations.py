"""Operations on pixels: pure functions of an image and a strength, from which `steps` builds its steps.

Images are float32 RGB arrays `h w 3` in [0, 1], in and out; the input is never written to. Each operation but JPEG
and grey has a strength at which it changes nothing: an impulse kernel, factor 1, sigma 0, shift 0, hue 0.
Averages are clipped too: in float32 the weights sum to 1 within 1e-7 only, and OpenCV's builds differ.
"""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32

RGB = Float32[np.ndarray, "h w 3"]
Resized = Float32[np.ndarray, "_ _ 3"]  # of any size
Interpolation = Literal["bilinear", "bicubic", "area"]

_FILTERS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}

# ITU-R 601 luma as torchvision rounds it (`rgb_to_grayscale`): it sums to 0.9999. OpenCV's red is 0.299.
_TORCHVISION_LUMA = np.array([0.2989, 0.587, 0.114], dtype=np.float32)


def blur(image: RGB, kernel: Float32[np.ndarray, " k"] | Float32[np.ndarray, "k k"]) -> RGB:
    """Filter with a square kernel, or with the outer product of a vector of taps with itself (much faster).

    The border is mirrored without repeating the edge pixel (reflect-101), OpenCV's default and so BasicSR's.
    """
    if kernel.ndim == 1:
        blurred = cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    else:
        blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.clip(blurred, 0, 1, out=blurred)


def downscale(image: RGB, factor: float) -> Float32[np.ndarray, "h_low w_low 3"]:
    """Bilinear, to int(size // factor) pixels, at least 1; a factor below 1 enlarges.

    No anti-aliasing, as in GFP-GAN: the blur before it is the only low-pass filter.
    """
    height, width, _ = image.shape
    return resize(image, max(1, int(height // factor)), max(1, int(width // factor)))


def resize(
    image: RGB, height: int, width: int, interpolation: Interpolation = "bilinear"
) -> Float32[np.ndarray, "{height} {width} 3"]:
    """Resize to `height` x `width` pixels; edges stay edges. Only "area" averages the pixels it leaves out."""
    resized = cv2.resize(image, (width, height), interpolation=_FILTERS[interpolation])
    return np.clip(resized, 0, 1, out=resized)


def add_gaussian_noise(image: RGB, sigma: float, rng: np.random.Generator, grey: bool = False) -> RGB:
    """Add normal noise and clip; `sigma` is in units of 1/255.

    It is independent in every pixel and channel, or the same in the three channels of a pixel if `grey`.
    """
    shape = (*image.shape[:2], 1) if grey else image.shape
    noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma / 255)
    noisy = image + noise
    return np.clip(noisy, 0, 1, out=noisy)


def add_poisson_noise(image: RGB, scale: float, rng: np.random.Generator, grey: bool = False) -> RGB:
    """Add `scale` times the difference between a photon count of mean 255 * image and that mean, and clip.

    At scale 1 a value v has the standard deviation sqrt(v / 255). If `grey`, the luma's noise goes to all channels.
    """
    mean = image @ _TORCHVISION_LUMA[:, None] if grey else image
    noise = rng.poisson(mean.astype(np.float64) * 255) / 255 - mean
    noisy = image + (scale * noise).astype(np.float32)
    return np.clip(noisy, 0, 1, out=noisy)


def jpeg(image: RGB, quality: int) -> RGB:
    """Round to 8 bit and pass through a JPEG with 4:2:0 chroma. ValueError unless `quality` is 1 to 100."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must lie in 1..100, got {quality}")
    bgr = cv2.cvtColor(np.rint(image * 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    chroma = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality, *chroma])
    assert encoded, "OpenCV could not encode a JPEG"
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None, "OpenCV could not decode its own JPEG"
    return np.divide(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), 255, dtype=np.float32)


def quantise(image: RGB) -> RGB:
    """Clip to [0, 1] and round to the 256 levels of an 8-bit image."""
    levels = np.rint(image * 255)
    return np.clip(levels, 0, 255, out=levels) / 255


def shift_colour(image: RGB, shift: Float32[np.ndarray, " 3"]) -> RGB:
    """Add one constant to each channel (R, G, B, in units of 1/255) and clip."""
    shifted = image + shift / 255
    return np.clip(shifted, 0, 1, out=shifted)


def to_grey(image: RGB) -> RGB:
    """Replace all channels by the ITU-R 601 luma, with OpenCV's weights as in GFP-GAN."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.clip(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), 0, 1)


def adjust_brightness(image: RGB, factor: float) -> RGB:
    """Scale all values, as torchvision does: 0 gives black, 1 the image. Raises ValueError for a negative factor."""
    _require_factor(factor)
    scaled = image * np.float32(factor)
    return np.clip(scaled, 0, 1, out=scaled)


def adjust_contrast(image: RGB, factor: float) -> RGB:
    """Blend with the mean luma, as torchvision does: 0 gives flat grey, 1 the image. Raises ValueError for a negative
    factor."""
    _require_factor(factor)
    mean = float(np.dot(cv2.mean(image)[:3], _TORCHVISION_LUMA))
    blended = image * np.float32(factor)
    blended += np.float32((1 - factor) * mean)
    return np.clip(blended, 0, 1, out=blended)


def adjust_saturation(image: RGB, factor: float) -> RGB:
    """Blend every pixel with its luma, as torchvision does: 0 gives grey, 1 the image. Raises ValueError for a negative
    factor."""
    _require_factor(factor)
    blend = factor * np.eye(3, dtype=np.float32) + (1 - factor) * np.tile(_TORCHVISION_LUMA, (3, 1))
    blended = cv2.transform(image, blend.astype(np.float32))
    return np.clip(blended, 0, 1, out=blended)


def adjust_hue(image: RGB, turn: float) -> RGB:
    """Rotate hues by a part of the colour circle, as torchvision does: 0 gives the image. Raises ValueError beyond
    0.5."""
    if not -0.5 <= turn <= 0.5:
        raise ValueError(f"hue must lie in [-0.5, 0.5], got {turn}")
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # float32: hue in degrees, [0, 360)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turn)) % 360
    rotated = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.clip(rotated, 0, 1, out=rotated)


def _require_factor(factor: float) -> None:
    if not factor >= 0:
        raise ValueError(f"a blending factor must not be negative, got {factor}")
