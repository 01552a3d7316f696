"""The test sets of the field: what each is, where it comes from, and whether a folder holds it completely."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from idm.io.errors import InvalidInput
from idm.io.find import find_images
from idm.io.images import ImageError, read_image

NO_ORIGINALS = "No originals: FID against FFHQ, quality without reference."
GFPGAN_PAGE = "https://xinntao.github.io/projects/gfpgan"


@dataclass(frozen=True)
class FaceSet:
    """A published set of aligned faces.

    Attributes:
        paired: whether it has originals: then the folder holds ``lq`` and ``hq`` with the same names, else images.
        note: what to know before comparing its numbers.
    """

    name: str
    title: str
    num_images: int
    size: int
    paired: bool
    where: str
    note: str


FACE_SETS = {
    one.name: one
    for one in (
        FaceSet(
            "celeba-test",
            "CelebA-Test (GFP-GAN's LQ)",
            3000,
            512,
            True,
            GFPGAN_PAGE,
            "FID of its LQ images against FFHQ is 143.98 and their PSNR 25.35; FID of restored faces is taken against "
            "FFHQ.",
        ),
        FaceSet(
            "celeba-test-daefr",
            "CelebA-Test (DAEFR's LQ)",
            3000,
            512,
            True,
            "https://github.com/LIAGM/DAEFR",
            "Harder LQ images (self_celeba_512_v2) under the same name as GFP-GAN's: never in one table with them.",
        ),
        FaceSet("lfw-test", "LFW-Test", 1711, 512, False, GFPGAN_PAGE, NO_ORIGINALS),
        FaceSet(
            "celebchild-test",
            "CelebChild-Test",
            180,
            512,
            False,
            GFPGAN_PAGE,
            "No originals; few faces for FID.",
        ),
        FaceSet(
            "webphoto-test",
            "WebPhoto-Test",
            407,
            512,
            False,
            GFPGAN_PAGE,
            "No originals. VQFR's README counts 469 images; 407 are what BFRffusion and GeoMAR use.",
        ),
        FaceSet(
            "wider-test",
            "WIDER-Test",
            970,
            512,
            False,
            "https://github.com/sczhou/CodeFormer",
            NO_ORIGINALS,
        ),
        FaceSet(
            "ffhq",
            "FFHQ",
            70000,
            1024,
            False,
            "https://github.com/NVlabs/ffhq-dataset",
            "Originals for training, and the reference of FID.",
        ),
    )
}


def check_face_set(name: str, folder: Path) -> Iterator[str]:
    """The faults of a folder that should hold a set: missing folders, wrong numbers, unreadable or other images.

    Raises:
        ValueError: there is no set of this name.
    """
    if name not in FACE_SETS:
        raise InvalidInput(f"{name!r} is not a known set; known: {', '.join(FACE_SETS)}")
    known = FACE_SETS[name]
    stems: dict[str, set[str]] = {}
    for part in ("lq", "hq") if known.paired else (".",):
        if not (folder / part).is_dir():
            yield f"{folder / part}: no such folder"
            continue
        paths = find_images([folder / part])
        stems[part] = {path.relative_to(folder / part).with_suffix("").as_posix() for path in paths}
        if len(paths) != known.num_images:
            yield f"{folder / part}: holds {len(paths)} images, not {known.num_images}"
        yield from _faults_of_images(paths, known.size)
    if len(stems) == 2:
        yield from (f"{folder}: {stem} is in one of lq and hq only" for stem in sorted(stems["lq"] ^ stems["hq"]))


def _faults_of_images(paths: list[Path], size: int) -> Iterator[str]:
    for path in paths:
        try:
            height, width = read_image(path).rgb.shape[:2]
        except ImageError as error:
            yield str(error)
            continue
        if (height, width) != (size, size):
            yield f"{path}: is {width}x{height}, not {size}x{size}"
