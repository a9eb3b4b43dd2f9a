"""The builder: the only place that binds deployments. Serve calls `app` with the `args` of its config."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve import Application

from deployments.messages import Selection
from engines.errors import ConfigurationError
from engines.types import EngineOptions
from graphs.http.auth import load_keys
from graphs.http.gateway import STORE, Gateway
from graphs.models import DEFAULT_MODELS_DIR
from graphs.settings import AppArgs, ModelFile, Replicas, Role, Store, all_models, store_location
from graphs.wiring import FaceWiring

if TYPE_CHECKING:
    from engines.face.model import FaceModel

SELECTIONS: dict[str, Selection] = {"largest": "largest", "score": "score"}


def app(args: AppArgs) -> Application:
    """The whole application.

    Raises ConfigurationError that names the model, the key and the remedy, before anything starts.
    """
    models_dir = args.models_dir or Path(os.environ.get("PRESENCE_MODELS_DIR", DEFAULT_MODELS_DIR))
    models = all_models(args, models_dir)
    faces = tuple(_face(model, models_dir, args) for model in models if model.capability == "face")
    keys = load_keys(args.gateway.api_keys_file, os.environ.get("PRESENCE_API_KEYS"))
    gateway = serve.deployment(
        name="Gateway",
        num_replicas=args.gateway.num_replicas,
        max_ongoing_requests=4 * args.gateway.max_in_flight,
        ray_actor_options={"num_cpus": args.gateway.num_cpus},
    )(serve.ingress(None)(Gateway))
    return gateway.bind(args, models, faces, _store(args.store), keys)


def _store(settings: Store) -> Application:
    # As for models: binding needs FAISS and SQLAlchemy, importing this module must not.
    from deployments.store import StoreSpec, VectorStore  # noqa: PLC0415
    from engines.store.faiss_index import IndexOptions  # noqa: PLC0415

    url, directory = store_location(settings, os.environ.get("PRESENCE_STORE_URL"))
    spec = StoreSpec(
        url=url,
        index=IndexOptions(**settings.index.model_dump()),
        snapshots=directory / "snapshots",
        snapshot_every_s=settings.snapshot_every_s,
        allow_stale=settings.when_away == "stale",
    )
    return serve.deployment(**_deployment_options(STORE, settings.replicas))(VectorStore).bind(spec)


def _face(model: ModelFile, models_dir: Path, args: AppArgs) -> FaceWiring:
    # Binding a model needs its libraries; importing this module must not load them.
    from engines.face.model import FaceModel  # noqa: PLC0415

    ours = {key: value for key, value in model.options.items() if key not in ("engine", "face_selection")}
    options = EngineOptions(model.parameters.model, ours, models_dir)
    try:
        described = FaceModel(model.engine, options)
        described.require_weights()
    except ConfigurationError as error:
        raise ConfigurationError(f"model {model.name}: {error.message}") from None
    return FaceWiring(
        name=model.name,
        threshold=described.engine.verify_threshold,
        handles=_face_parts(model, described, options, args.media.max_pixels),
        heads=_heads(described),
        liveness_threshold=described.liveness.threshold,
        select=_selection(model),
    )


def _face_parts(
    model: ModelFile, described: "FaceModel", options: EngineOptions, max_pixels: int
) -> dict[str, Application]:
    """Part -> bound deployment; the parts of a fused model share one."""
    from deployments import face  # noqa: PLC0415 - see _face

    kinds: dict[Role, type] = {"detector": face.FaceDetector, "recognizer": face.FaceRecognizer}
    if _heads(described):
        kinds["attributes"] = face.FaceAttributes
    if described.liveness.available:
        kinds["liveness"] = face.FaceLiveness
    sized: dict[Role, type] = {"detector": face.FusedFace} if model.fused else kinds
    if unused := set(model.deployment) - set(sized):
        why = "a fused model is sized by its detector" if model.fused else "the model has no such part"
        raise ConfigurationError(f"model {model.name}: deployment.{min(unused)}: {why}")

    def bind(role: Role, kind: type) -> Application:
        given = model.replicas(role)
        spec = face.FaceSpec(model.name, model.engine, options, given.threads, max_pixels)
        name = f"{model.name}.{'fused' if model.fused else role}"
        return serve.deployment(**_deployment_options(name, given))(kind).bind(spec)

    bound = {role: bind(role, kind) for role, kind in sized.items()}
    return {role: bound.get(role, bound["detector"]) for role in kinds}


def _heads(model: "FaceModel") -> tuple[str, ...]:
    heads = {"genderage": model.engine.has_attributes, "expression": model.expression.available}
    return tuple(name for name, there in heads.items() if there)


def _selection(model: ModelFile) -> Selection:
    chosen = model.options.get("face_selection", "largest")
    if chosen not in SELECTIONS:
        raise ConfigurationError(
            f"model {model.name}: option face_selection:{chosen} is unknown; use {' or '.join(SELECTIONS)}"
        )
    return SELECTIONS[chosen]


def _deployment_options(name: str, given: Replicas) -> Mapping[str, Any]:
    actor: dict[str, Any] = {"num_cpus": given.num_cpus, "num_gpus": given.num_gpus}
    if given.runtime_env:
        actor["runtime_env"] = given.runtime_env
    options: dict[str, Any] = {
        "name": name,
        "max_ongoing_requests": given.max_ongoing_requests,
        "max_queued_requests": given.max_queued_requests,
        "ray_actor_options": actor,
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
