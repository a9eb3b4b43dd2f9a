"""How much memory FFmpeg may take at once, in all of the process.

Some of its demuxers allocate what a header claims before they look how long the file is: 48 kB of WAV can ask
for 2 GB. PyAV has no call for FFmpeg's own limit, so it is set in the library that PyAV's wheel carries.
Source: https://ffmpeg.org/doxygen/trunk/mem_8h.html, av_max_alloc.
"""

import ctypes
from pathlib import Path

import av

MOST_BYTES = 64 * 2**20


def limit_allocations() -> bool:
    """Refuses single allocations above MOST_BYTES from now on. False for a PyAV that is no such wheel."""
    libraries = list(Path(av.__file__).parent.with_name("av.libs").glob("libavutil-*"))
    for path in libraries:
        set_limit = ctypes.CDLL(str(path)).av_max_alloc  # the one that is loaded already
        set_limit.argtypes, set_limit.restype = [ctypes.c_size_t], None
        set_limit(MOST_BYTES)
    return bool(libraries)
