"""The deployment that serves the HTTP application."""

import time
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from graphs.choice import DISABLED
from graphs.clients.face import (
    RemoteFaceAttributes,
    RemoteFaceDetector,
    RemoteFaceLiveness,
    RemoteFaceRecognizer,
)
from graphs.clients.store import RemoteStore
from graphs.clients.tts import RemoteSynthesizer
from graphs.clients.voice import RemoteVoiceAttributes, RemoteVoiceEncoder
from graphs.face import FaceFlow, FaceNode
from graphs.http.application import http_application
from graphs.http.logs import write_logs
from graphs.media import MediaReader, MediaRules
from graphs.services import Services
from graphs.settings import AppArgs, ModelFile
from graphs.status import ServeStatus
from graphs.store import Registrations
from graphs.stores import Stores
from graphs.tts import SpeechFlow, SpeechNode
from graphs.voice import VoiceFlow, VoiceNode
from graphs.voices import VoiceLibrary
from graphs.wiring import Wirings
from graphs.wiring.face import FaceWiring
from graphs.wiring.voice import VoiceWiring

STORE = "store"
"""Name of the store's deployment; /readyz waits for it too."""


class Gateway:
    """One replica of the HTTP ingress: flows live here, models behind their handles."""

    def __init__(
        self,
        args: AppArgs,
        models: tuple[ModelFile, ...],
        wirings: Wirings,
        store: DeploymentHandle[Any],
        api_keys: frozenset[str],
    ) -> None:
        write_logs()
        media = MediaReader(media_rules(args))
        remote = RemoteStore(store)
        kinds = {model.name: DISABLED if model.disabled else model.capability for model in models}
        models = tuple(model for model in models if not model.disabled)
        library = VoiceLibrary(remote, args.speech.max_profiles, args.speech.max_profile_seconds)
        nodes, ad_hoc = speech_nodes(wirings)
        own = {wiring.name for wiring in wirings.speech if not wiring.handles}
        self._services = Services(
            settings=args.gateway,
            models=models,
            status=ServeStatus(
                [*(model.name for model in models if model.name not in own), STORE],
                serve.get_replica_context().app_name,
                on_demand=own,
            ),
            face=FaceFlow({wiring.name: face_node(wiring) for wiring in wirings.faces}, media, kinds),
            voice=VoiceFlow({wiring.name: voice_node(wiring) for wiring in wirings.voices}, media, kinds),
            speech=SpeechFlow(nodes, library, ad_hoc, kinds, args.speech.max_characters),
            library=library,
            media=media,
            people={kind: Registrations(kind, remote) for kind in ("face", "voice")},
            stores=Stores(remote),
            started_at=int(time.time()),
            speech_deadline_s=args.speech.deadline_s,
            api_keys=api_keys,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return http_application(self._services, echo_request_ids=False)


def media_rules(args: AppArgs) -> MediaRules:
    """The rules of the media reader from the settings."""
    media = args.media
    return MediaRules(
        max_bytes=media.max_bytes,
        fetch_timeout_s=media.fetch_timeout_s,
        allow_networks=media.allow_networks,
        allow_urls=media.allow_urls,
    )


def face_node(wiring: FaceWiring) -> FaceNode:
    """A face model of the graph, its handles wrapped in typed adapters."""
    handles: dict[str, Any] = dict(wiring.handles)
    return FaceNode(
        name=wiring.name,
        threshold=wiring.threshold,
        detector=RemoteFaceDetector(handles["detector"]),
        recognizer=RemoteFaceRecognizer(handles["recognizer"], wiring.recognizer_batch),
        attributes=RemoteFaceAttributes(handles["attributes"]) if "attributes" in handles else None,
        heads=wiring.heads,
        liveness=RemoteFaceLiveness(handles["liveness"]) if "liveness" in handles else None,
        liveness_threshold=wiring.liveness_threshold,
        select=wiring.select,
    )


def voice_node(wiring: VoiceWiring) -> VoiceNode:
    """A voice model of the graph, its handles wrapped in typed adapters."""
    handles: dict[str, Any] = dict(wiring.handles)
    return VoiceNode(
        name=wiring.name,
        threshold=wiring.threshold,
        encoder=RemoteVoiceEncoder(handles["encoder"]),
        attributes=RemoteVoiceAttributes(handles["attributes"]) if "attributes" in handles else None,
        heads=wiring.heads,
    )


def speech_nodes(wirings: Wirings) -> tuple[dict[str, SpeechNode], dict[str, SpeechNode]]:
    """The text-to-speech models of the graph by name, and the nodes of backends that load on demand."""
    shared = wirings.on_demand
    on_demand = RemoteSynthesizer(shared.handles["synthesizer"]) if shared else None
    nodes: dict[str, SpeechNode] = {}
    for wiring in wirings.speech:
        handle: Any = wiring.handles.get("synthesizer")
        if (synthesizer := RemoteSynthesizer(handle) if handle else on_demand) is not None:
            nodes[wiring.name] = SpeechNode(
                name=wiring.name,
                backend=wiring.backend,
                synthesizer=synthesizer,
                weights=wiring.weights,
                language=wiring.language,
                music=wiring.music,
                clones=wiring.clones,
                on_demand=not handle,
            )
    if shared is None or on_demand is None:
        return nodes, {}
    return nodes, {
        backend: SpeechNode(backend, backend, on_demand, language=language, on_demand=True)
        for backend, language in shared.backends.items()
    }
