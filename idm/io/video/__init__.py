"""Video files. Needs PyAV (the extra ``video``), and so is imported only where there is a video."""

from idm.io.errors import MissingPackage

try:
    import av as av
except ImportError as error:
    raise MissingPackage('videos need PyAV: pip install "idm-face-restoration[video]"') from error
