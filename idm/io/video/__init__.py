"""Video files. Needs PyAV (the extra ``video``), and so is imported only where there is a clip."""

try:
    import av as av
except ImportError as error:
    raise ImportError('videos need PyAV: pip install "idm-face-restoration[video]"') from error
