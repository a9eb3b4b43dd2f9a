"""The builder: the only place that binds deployments. Serve calls `app` with the `args` of its config."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ray import serve
from ray.serve import Application

from engines.errors import ConfigurationError
from graphs.addresses import parse_networks
from graphs.http.auth import load_keys
from graphs.http.gateway import STORE, Gateway
from graphs.models import DEFAULT_MODELS_DIR
from graphs.settings import AppArgs, ModelFile, Replicas, Store, all_models, store_location
from graphs.wiring import Wirings, face, tts, voice
from graphs.wiring.part import Part

ROUTER = "graphs.routing.FewestInFlight"

PARTING_S = 5
"""How much longer than any request may last a replica that stops is waited for, before it is killed."""

Wiring = TypeVar("Wiring", face.FaceWiring, voice.VoiceWiring, tts.TtsWiring, tts.OnDemandWiring)


def app(args: AppArgs) -> Application:
    """The whole application.

    Raises ConfigurationError that names the model, the key and the remedy, before anything starts.
    """
    models_dir = args.models_dir or Path(os.environ.get("PRESENCE_MODELS_DIR", DEFAULT_MODELS_DIR))
    if args.models_dir and not args.models_dir.is_dir():
        raise ConfigurationError(
            f"models_dir: {args.models_dir} is no directory; make it, or correct the path"
        )
    try:
        parse_networks(args.media.allow_networks)
    except ConfigurationError as error:
        raise ConfigurationError(f"media.{error.message}") from None
    written = all_models(args, models_dir)
    models = tuple(model for model in written if not model.disabled)
    found = tuple(tts.found_voices(models_dir, written))
    speaking = Speaking(found, {"coqui": os.environ.get("COQUI_LANGUAGE", "")})
    wirings = _wirings(models, models_dir, args, speaking)
    keys = load_keys(args.gateway.api_keys_file, os.environ.get("PRESENCE_API_KEYS"))
    if args.gateway.require_keys and not keys:
        raise ConfigurationError("gateway.require_keys: set gateway.api_keys_file or PRESENCE_API_KEYS")
    gateway = serve.deployment(
        name="Gateway",
        num_replicas=args.gateway.num_replicas,
        max_ongoing_requests=4 * args.gateway.max_in_flight,
        graceful_shutdown_timeout_s=max(args.gateway.deadline_s, args.speech.deadline_s) + PARTING_S,
        ray_actor_options={"num_cpus": args.gateway.num_cpus},
    )(serve.ingress(None)(Gateway))
    return gateway.bind(args, (*written, *found), wirings, _store(args.store, args.gateway.deadline_s), keys)


def _store(settings: Store, deadline_s: float) -> Application:
    # As for models: binding needs FAISS and SQLAlchemy, importing this module must not.
    from deployments.store import StoreSpec, VectorStore  # noqa: PLC0415
    from engines.store.database import parse_url  # noqa: PLC0415
    from engines.store.index_options import IndexOptions  # noqa: PLC0415
    from engines.store.pgvector import require_postgres  # noqa: PLC0415

    url, directory = store_location(settings, os.environ.get("PRESENCE_STORE_URL"))
    parse_url(url)
    if settings.kind == "pgvector":
        require_postgres(url)
    spec = StoreSpec(
        url=url,
        kind=settings.kind,
        index=IndexOptions(**settings.index.model_dump()),
        snapshots=directory / "snapshots",
        snapshot_every_s=settings.snapshot_every_s,
        compact_every_s=settings.compact_every_s,
        allow_stale=settings.when_away == "stale",
    )
    options = _deployment_options(STORE, settings.replicas, deadline_s)
    return serve.deployment(**options)(VectorStore).bind(spec)


@dataclass(frozen=True, slots=True)
class Speaking:
    """What model files do not say of speech. found: voices without one; languages: default by backend."""

    found: Sequence[ModelFile]
    languages: Mapping[str, str]


def _wirings(models: Iterable[ModelFile], models_dir: Path, args: AppArgs, speaking: Speaking) -> Wirings:
    """Every model described, and its parts bound."""
    faces, voices, speech = [], [], []
    deadline_s = args.gateway.deadline_s
    for model in models:
        kind = model.capability
        try:
            match kind:
                case "face":
                    faces.append(_with_bound_parts(face.describe(model, models_dir, args.media), deadline_s))
                case "voice":
                    voices.append(
                        _with_bound_parts(voice.describe(model, models_dir, args.media), deadline_s)
                    )
                case "tts":
                    told = tts.describe(model, models_dir, speaking.languages)
                    speech.append(_with_bound_parts(told, args.speech.deadline_s))
                case _:
                    raise ConfigurationError(f"the service has no part for {kind} models")
        except ConfigurationError as error:
            raise ConfigurationError(f"{model.where}: {error.message}") from None
    shared = tts.on_demand(args.speech.on_demand, models_dir, speaking.found, speaking.languages)
    return Wirings(
        tuple(faces),
        tuple(voices),
        (*speech, *(tts.wiring_of(one) for one in speaking.found)),
        _with_bound_parts(shared, args.speech.deadline_s, from_none=True) if shared else None,
    )


def _with_bound_parts(wiring: Wiring, deadline_s: float, *, from_none: bool = False) -> Wiring:
    """The wiring with applications for parts; roles of the same part share one.

    deadline_s: the longest that a request may last. from_none: no replica runs while nobody asks.
    """
    parts: dict[str, Part] = {part.name: part for part in wiring.handles.values()}
    options = {name: _deployment_options(name, part.given, deadline_s) for name, part in parts.items()}
    if from_none:
        for one in options.values():
            one["autoscaling_config"] = {**one["autoscaling_config"], "min_replicas": 0}
    bound = {
        name: serve.deployment(**options[name])(part.kind).bind(part.spec) for name, part in parts.items()
    }
    return replace(wiring, handles={role: bound[part.name] for role, part in wiring.handles.items()})


def _deployment_options(name: str, given: Replicas, deadline_s: float) -> dict[str, Any]:
    actor: dict[str, Any] = {"num_cpus": given.num_cpus, "num_gpus": given.num_gpus}
    if given.runtime_env:
        actor["runtime_env"] = given.runtime_env
    options: dict[str, Any] = {
        "name": name,
        "max_ongoing_requests": given.max_ongoing_requests,
        "max_queued_requests": given.max_queued_requests,
        "graceful_shutdown_timeout_s": deadline_s + PARTING_S,
        "ray_actor_options": actor,
        "request_router_config": {"request_router_class": ROUTER},
        "user_config": {
            "max_batch_size": given.max_batch_size,
            "batch_wait_timeout_s": given.batch_wait_timeout_s,
        },
    }
    if given.max_replicas is None:
        return {**options, "num_replicas": given.min_replicas}
    scaling = {
        "min_replicas": given.min_replicas,
        "max_replicas": given.max_replicas,
        "target_ongoing_requests": given.target_ongoing_requests,
    }
    return {**options, "autoscaling_config": scaling}
