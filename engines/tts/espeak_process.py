"""eSpeak NG for this process: in a child, so that a text that crashes the C library crashes nothing else.

Library and data come inside the package espeakng-loader.
"""

import atexit
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from engines.errors import ConfigurationError, InvalidInput
from engines.tts import espeak_child

MOST_CHARACTERS = 1_000
"""Of one request: a minute of speech, several where punctuation or digits are read out."""


@dataclass(frozen=True, slots=True)
class VoiceFile:
    """A language or a variant of the data.

    identifier: its file. languages: codes, the most fitting with the lowest number.
    """

    identifier: str
    name: str
    gender: str
    languages: tuple[tuple[str, int], ...]

    @property
    def code(self) -> str:
        """The name of its file in lower case: what users of espeak-ng call it, such as en-us and f3."""
        return self.identifier.rpartition("/")[2].lower()


class EspeakProcess:
    """The one child of a process, by `process()`. Thread-safe: requests wait for one another.

    Raises ConfigurationError where it cannot be started. A child that has died is started again.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="espeak")
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self._end)  # the thread has ended by then
        about = self._thread.submit(self._start).result()
        self.rate: int = about["rate"]
        """Samples a second."""
        self.languages = _voices(about["languages"])
        self.variants = _voices(about["variants"])

    def speak(
        self, text: str, voice: str, parameters: dict[str, int]
    ) -> Generator[NDArray[np.int16], None, None]:
        """The sound of a text as it is made; closing the iterator stops it.

        text: without control characters: some are commands. voice: identifiers, LANGUAGE or LANGUAGE+VARIANT.
        parameters: by the names of espeak_child.PARAMETERS. Raises InvalidInput for more than MOST_CHARACTERS
        and for text that crashes the library.
        """
        chunks: SimpleQueue[bytes | None] = SimpleQueue()
        stopped = Event()
        request = {"do": "speak", "text": _bounded(text), "voice": voice, "parameters": parameters}
        work = self._thread.submit(self._ask, request, chunks.put, stopped)
        work.add_done_callback(lambda _: chunks.put(None))
        try:
            while (chunk := chunks.get()) is not None:
                yield np.frombuffer(chunk, np.int16)
            if not work.result():
                raise ConfigurationError(f"espeak-ng has no data for voice {voice}")
        finally:
            stopped.set()
            work.cancel()

    def phonemes(self, text: str, voice: str) -> list[tuple[str, str]]:
        """IPA of each clause, and what of the text was read for it.

        espeak-ng reads one character ahead where a clause ends before the text does. Raises InvalidInput as
        `speak` does, ConfigurationError where the data have no such voice.
        """
        request = {"do": "phonemes", "text": _bounded(text), "voice": voice}
        clauses = self._thread.submit(self._ask, request, lambda _: None, Event()).result()
        if clauses is None:
            raise ConfigurationError(f"espeak-ng has no data for voice {voice[:40]!r}")
        return [(ipa, read) for ipa, read in clauses]

    def close(self) -> None:
        """Ends the child; the next request would start another."""
        self._thread.submit(self._end).result()

    def _start(self) -> Any:
        command = [sys.executable, "-I", str(Path(espeak_child.__file__))]
        paths = [espeakng_loader.get_library_path(), espeakng_loader.get_data_path()]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(  # noqa: S603 - our own script and paths of an installed package
            [*command, *map(str, paths)], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0
        )
        try:
            return self._answer(lambda _: None, Event())
        except EOFError:
            self._end()
            raise ConfigurationError("espeak-ng cannot be started: install espeakng-loader again") from None

    def _ask(self, request: dict[str, Any], sink: Callable[[bytes], None], stopped: Event) -> Any:
        if self._child is None:
            self._start()
        try:
            self._write(json.dumps(request).encode())
            return self._answer(sink, stopped)
        except (EOFError, BrokenPipeError):
            self._end()
            raise InvalidInput("espeak-ng cannot speak this text") from None

    def _answer(self, sink: Callable[[bytes], None], stopped: Event) -> Any:
        told = False
        while True:
            kind, length = struct.unpack("<cI", self._read(5))
            payload = self._read(length)
            if kind == espeak_child.RESULT:
                return json.loads(payload)
            sink(payload)
            if stopped.is_set() and not told:
                told = True
                self._write(b"")

    def _write(self, data: bytes) -> None:
        if self._child is None or self._child.stdin is None:
            raise EOFError
        self._child.stdin.write(struct.pack("<I", len(data)) + data)

    def _read(self, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            part = self._child.stdout.read(length) if self._child and self._child.stdout else b""
            if not part:
                raise EOFError
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.communicate()


def process() -> EspeakProcess:
    """The child, started on first use. Raises ConfigurationError where it cannot be."""
    with _starting:
        return _process()


_starting = Lock()
_process = cache(EspeakProcess)


def _bounded(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise InvalidInput(f"espeak-ng speaks at most {MOST_CHARACTERS} characters at once")
    return text


def _voices(found: list[dict[str, Any]]) -> list[VoiceFile]:
    return [
        VoiceFile(
            one["identifier"],
            one["name"],
            one["gender"],
            tuple((code, priority) for code, priority in one["languages"]),
        )
        for one in found
    ]
