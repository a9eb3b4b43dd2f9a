"""A process of its own around the C library eSpeak NG: reads requests from stdin, writes frames to stdout.

Run as a script with the paths of library and data; it needs nothing but the standard library. A request is
its length (4 bytes, little-endian) and JSON. A frame is its kind (one byte), its length and as many bytes:
SOUND, 16-bit samples of the machine's order, then one RESULT, JSON. An empty request stops the synthesis.

Source: https://github.com/espeak-ng/espeak-ng/blob/1.52.0/src/include/espeak-ng/speak_lib.h (GPL-3.0).
"""

import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
from collections.abc import Iterator
from itertools import count, takewhile
from typing import Any

SOUND, RESULT = b"s", b"r"
SYNCHRONOUS, DONT_EXIT = 2, 0x8000
CHUNK_MILLISECONDS = 100
UTF8, IPA = 1, 2
GENDERS = ("", "male", "female")
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4, "word_gap": 7}
"""Numbers of espeak_SetParameter."""

SECONDS = 30
"""Time for one request; a hundred times what the longest takes. The kernel ends the process after it."""

MEMORY = 1 << 30
"""Bytes of address space."""


class VoiceRecord(ctypes.Structure):
    """espeak_VOICE."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),  # pairs of a priority byte and a C string, up to a 0
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """The library. Its state is global: one request after the other."""

    def __init__(self, library: str, data: str) -> None:
        self._c = ctypes.CDLL(library)
        self._c.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(VoiceRecord))
        self._c.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.rate = int(self._c.espeak_Initialize(SYNCHRONOUS, CHUNK_MILLISECONDS, data.encode(), DONT_EXIT))
        self._callback = SynthCallback(_chunk)  # must live as long as the library uses it
        self._c.espeak_SetSynthCallback(self._callback)

    def voices(self, language: bytes | None = None) -> list[dict[str, Any]]:
        """The languages of the data; its variants where the language is "variant"."""
        wanted = VoiceRecord(languages=ctypes.cast(ctypes.c_char_p(language), ctypes.c_void_p).value)
        records = self._c.espeak_ListVoices(ctypes.byref(wanted) if language else None)
        found = takewhile(bool, (records[place] for place in count()))
        return [_described(record.contents) for record in found]

    def speak(self, text: str, voice: str, parameters: dict[str, int]) -> bool:
        """Writes SOUND frames. False: there is no such voice."""
        if self._c.espeak_SetVoiceByName(voice.encode()):
            return False
        for name, value in parameters.items():
            self._c.espeak_SetParameter(PARAMETERS[name], value, 0)
        for part in (text, ""):  # the empty one clears what a stopped synthesis has read ahead
            data = ctypes.create_string_buffer(part.encode())
            self._c.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, UTF8, None, None)
        return True

    def phonemes(self, text: str, voice: str) -> list[tuple[str, str]] | None:
        """IPA of each clause, and what of the text was read for it. None: there is no such voice."""
        if self._c.espeak_SetVoiceByName(voice.encode()):
            return None
        data = ctypes.create_string_buffer(text.encode())
        start, position = ctypes.addressof(data), ctypes.c_void_p(ctypes.addressof(data))
        clauses, read = [], 0
        while position.value is not None:
            ipa = self._c.espeak_TextToPhonemes(ctypes.byref(position), UTF8, IPA)
            end = (position.value or start + len(data) - 1) - start
            clauses.append((ipa.decode(errors="ignore"), data.raw[read:end].decode(errors="ignore")))
            read = end
        return clauses


def _described(voice: VoiceRecord) -> dict[str, Any]:
    return {
        "identifier": voice.identifier.decode(),
        "name": voice.name.decode(),
        "gender": GENDERS[voice.gender] if voice.gender < len(GENDERS) else "",
        "languages": list(_languages(voice.languages)),
    }


def _languages(address: int) -> Iterator[tuple[str, int]]:
    while priority := ctypes.string_at(address, 1)[0]:
        code = ctypes.string_at(address + 1)
        yield code.decode().lower(), priority
        address += len(code) + 2


def _chunk(wave: "ctypes._Pointer[ctypes.c_short]", samples: int, _events: int | None) -> int:
    """1 stops the synthesis."""
    if samples:
        _write(SOUND, ctypes.string_at(wave, 2 * samples))
    return int(bool(select.select([0], [], [], 0)[0]))


def _write(kind: bytes, payload: bytes) -> None:
    sys.stdout.buffer.write(kind + struct.pack("<I", len(payload)) + payload)
    sys.stdout.buffer.flush()


def main() -> None:
    """Answers until stdin is closed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    library = Espeak(sys.argv[1], sys.argv[2])
    about = {"rate": library.rate, "languages": library.voices(), "variants": library.voices(b"variant")}
    _write(RESULT, json.dumps(about).encode())
    while length := _read(4):
        (size,) = struct.unpack("<I", length)
        if not size:
            continue  # a stop that came late
        request = json.loads(_read(size))
        signal.alarm(SECONDS)
        answer = getattr(library, request.pop("do"))(**request)
        signal.alarm(0)
        _write(RESULT, json.dumps(answer).encode())


def _read(size: int) -> bytes:
    """Nothing once stdin is closed. Without a buffer, which would hide a stop from `select`."""
    data = b""
    while len(data) < size and (part := os.read(0, size - len(data))):
        data += part
    return data


if __name__ == "__main__":
    main()
