"""The deadline of a request, from the settings of the gateway."""

import time
from typing import Annotated

from fastapi import Depends, Request

from graphs.services import Services


async def _deadline(request: Request) -> float:
    services: Services = request.app.state.services
    return time.time() + services.settings.deadline_s


async def _speech_deadline(request: Request) -> float:
    services: Services = request.app.state.services
    return time.time() + services.speech_deadline_s


Deadline = Annotated[float, Depends(_deadline)]
"""Seconds since the epoch."""

SpeechDeadline = Annotated[float, Depends(_speech_deadline)]
"""The same for speech, which takes longer."""
