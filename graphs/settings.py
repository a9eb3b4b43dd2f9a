"""Settings of the application and model files. Each default lives here, beside what it sets."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from engines import registry
from engines.errors import ConfigurationError
from graphs.explain import explain, unreadable
from graphs.localai_keys import LOCALAI_KEYS_WITHOUT_EFFECT
from graphs.nulls import NullsAbsent

logger = logging.getLogger("presence.settings")

DEFAULT_STORE_DIR = Path("~/.presence/store")

Role = Literal["detector", "recognizer", "attributes", "liveness", "encoder", "synthesizer"]

ENGINE_OPTION: dict[tuple[str, str], str] = {
    ("insightface", "insightface"): "insightface",
    ("insightface", "onnx_direct"): "opencv-zoo",
    ("insightface", "onnx-direct"): "opencv-zoo",
    ("insightface", "opencv"): "opencv-zoo",
    ("speaker-recognition", "speechbrain"): "speechbrain",
    ("speaker-recognition", "onnx"): "wespeaker",
}
"""LocalAI's `backend` and its `engine` option, together, name one of our engines."""


class Settings(NullsAbsent):
    """Base of all settings: immutable, unknown keys refused, empty ones as if left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Replicas(Settings):
    """What Ray gives one part of a model."""

    num_cpus: float = Field(0.1, ge=0, description="CPUs booked; also the bound of inference threads")
    num_gpus: float = Field(0.0, ge=0, description="GPUs booked, a fraction or a whole number")
    min_replicas: int = Field(1, ge=1, description="replicas kept running")
    max_replicas: int | None = Field(
        None, ge=1, description="replicas at most; None: as many as min_replicas, no autoscaling"
    )
    target_ongoing_requests: float = Field(8, gt=0, description="requests a replica, for autoscaling")
    max_batch_size: int = Field(8, ge=1, le=1024, description="items in one run of the model")
    batch_wait_timeout_s: float = Field(
        0.0, ge=0, le=1, description="how long an idle model waits for more items; 0: not at all"
    )
    max_ongoing_requests: int = Field(64, ge=1, description="requests inside one replica")
    max_queued_requests: int = Field(
        128, ge=1, description="requests that wait in each gateway for a replica; over it: 503"
    )
    runtime_env: dict[str, Any] | None = Field(None, description="Ray runtime_env of the replicas")

    @model_validator(mode="after")
    def _ordered(self) -> "Replicas":
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas is below min_replicas")
        return self

    @property
    def threads(self) -> int:
        """Inference threads: num_cpus rounded down, at least 1."""
        return max(1, int(self.num_cpus))


def _options(value: object) -> object:
    """LocalAI writes options as a list of "key:value"; a mapping is accepted too. All values are text."""
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items() if item is not None}
    if not isinstance(value, list):
        return value
    pairs = [str(item).partition(":") for item in value]
    if wrong := [key for key, colon, _ in pairs if not colon]:
        raise ValueError(f"option {wrong[0]!r} is not of the form key:value")
    return {key.strip(): item.strip() for key, _, item in pairs}


class Parameters(NullsAbsent):
    """LocalAI's `parameters`: the model and its language; other keys belong to text generation."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str = Field("", description="weights, as the engine names them")
    language: str = Field("", description="language of the model")


class WeightFile(Settings):
    """A file that the gallery installed for a model."""

    filename: str
    uri: str = ""
    sha256: str = ""


class Reference(Settings):
    """LocalAI's `tts.vall-e`."""

    audio_path: str = Field("", description="recording of the voice, relative to the models directory")


class Speaking(Settings):
    """LocalAI's `tts`: the voice of a text-to-speech model."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    voice: str = Field("", description="voice when a request names none")
    audio_path: str = Field(
        "", description="recording of the voice to speak with, relative to the models directory"
    )
    voice_cloning: bool | None = Field(None, description="LocalAI's; accepted, means nothing here")
    vall_e: Reference = Field(Reference(), alias="vall-e", description="LocalAI's older place of audio_path")

    @property
    def recording(self) -> str:
        """The file of the voice to speak with, "" where a voice is named or there is none."""
        return "" if self.voice else self.audio_path or self.vall_e.audio_path


class ModelFile(Settings):
    """One model: LocalAI's model YAML plus `deployment`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="what requests call `model`")
    backend: str = Field(description="engine")
    known_usecases: tuple[str, ...] = Field((), description="LocalAI's; the backend alone tells")
    parameters: Parameters = Parameters()
    options: Annotated[dict[str, str], BeforeValidator(_options)] = Field(
        default_factory=dict, description="options of the engine"
    )
    tts: Speaking = Field(Speaking(), description="text to speech: the voice")
    files: tuple[WeightFile, ...] = Field((), description="files the gallery installed")
    license: str = Field("", description="licence of the weights")
    disabled: bool = Field(
        False, description="LocalAI's: the model is not served, requests that name it get 403"
    )
    fused: bool = Field(
        False, description="all parts in one replica, sized by deployment.detector: one hop less a request"
    )
    deployment: dict[Role, Replicas] = Field(default_factory=dict, description="what Ray gives each part")
    _path: Path | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _localai(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        every = data.get("disabled") is True  # of a backend that is not here, perhaps
        ignored = {
            key for key in data if every or key in LOCALAI_KEYS_WITHOUT_EFFECT
        } - cls.model_fields.keys()
        return {key: value for key, value in data.items() if key not in ignored}

    @property
    def where(self) -> str:
        """How errors name it: with its file, where it has one."""
        return f"{self._path}: model {self.name}" if self._path else f"model {self.name}"

    @property
    def engine(self) -> str:
        """Name of the engine in the registry. Raises ConfigurationError for an unknown `engine` option."""
        chosen = self.options.get("engine", "")
        if self.backend == "speaker-recognition" and not chosen:
            chosen = "onnx" if {"model_path", "onnx"} & set(self.options) else "speechbrain"
        if not chosen or self.backend == chosen:
            return self.backend
        try:
            return ENGINE_OPTION[self.backend, chosen]
        except KeyError:
            raise ConfigurationError(
                f"{self.where}: option engine:{chosen} is unknown for backend {self.backend}"
            ) from None

    @property
    def capability(self) -> str:
        """What the model is for, such as "face". Raises ConfigurationError for an unknown backend."""
        engine = self.engine
        try:
            return registry.capability(engine)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.where}: {error.message}") from None

    def replicas(self, role: Role) -> Replicas:
        """What Ray gives one part."""
        return self.deployment.get(role) or Replicas()


class Gateway(Settings):
    """The HTTP gateway."""

    num_replicas: int = Field(1, ge=1, description="gateway replicas; at least 2 where nothing may pause")
    num_cpus: float = Field(0.1, ge=0, description="CPUs booked for each")
    max_in_flight: int = Field(256, ge=1, description="requests in flight in a replica; over it: 503")
    max_body_bytes: int = Field(15 * 2**20, ge=1024, description="largest request body; over it: 413")
    deadline_s: float = Field(30.0, gt=0, description="answer a request within this time, else 504")
    cors_origins: tuple[str, ...] = Field((), description="origins that browsers may call from; * for all")
    api_keys_file: Path | None = Field(None, description="file of API keys, one a line")
    require_keys: bool = Field(False, description="refuse to start without an API key")


class Media(Settings):
    """Pictures and clips in requests."""

    max_bytes: int = Field(15 * 2**20, ge=1, description="largest picture or clip, decoded from base64")
    max_pixels: int = Field(50_000_000, ge=1, description="largest picture; checked before decoding")
    max_seconds: float = Field(300.0, gt=0, description="longest clip")
    fetch_timeout_s: float = Field(15.0, gt=0, description="time to fetch a URL, redirects included")
    allow_urls: bool = Field(True, description="whether URLs are fetched at all")
    allow_networks: tuple[str, ...] = Field((), description="private networks that URLs may point to (CIDR)")


class OnDemand(Settings):
    """Text-to-speech models without a model file: loaded when a request names them, in one deployment."""

    backends: tuple[str, ...] = Field(
        (), description="backends that a request may name with any model; none: only piper voices found"
    )
    loaded: int = Field(2, ge=1, description="models that a replica keeps; the least recently used leaves")
    replicas: Replicas = Field(
        Replicas(max_replicas=1), description="what Ray gives it; while nobody asks, no replica runs"
    )

    @model_validator(mode="after")
    def _scales(self) -> "OnDemand":
        if self.replicas.max_replicas is None:
            raise ValueError("replicas.max_replicas: say how many replicas may run")
        return self


class Speech(Settings):
    """Text to speech."""

    max_characters: int = Field(10_000, ge=1, description="longest text; over it: 413")
    deadline_s: float = Field(300.0, gt=0, description="speak a text within this time, else 504")
    max_profiles: int = Field(1000, ge=0, description="recordings in the library of voices")
    max_profile_seconds: float = Field(120.0, gt=1, description="longest recording in the library of voices")
    on_demand: OnDemand = OnDemand()


class Index(Settings):
    """How vectors are searched: engines/store/index_options.py says what each does."""

    kind: Literal["flat", "flat-fp16", "hnsw", "ivf"] = Field("flat", description="kind of FAISS index")
    approximate_from: int = Field(200_000, ge=1, description="fewer records are always searched exactly")
    m: int = Field(32, ge=4, le=256, description="hnsw: links of a node")
    ef_construction: int = Field(80, ge=8, description="hnsw: breadth of the search when a node is added")
    ef_search: int = Field(64, ge=8, description="hnsw: breadth of the search")
    nlist: int = Field(0, ge=0, description="ivf: lists; 0: 4 * sqrt(records)")
    nprobe: int = Field(32, ge=1, description="ivf: lists that are searched")
    threads: int = Field(1, ge=1, description="CPU threads of one search")
    gpu: bool = Field(False, description="keep a flat index on the GPU that the replica was given")


PGVECTOR_INDEX = {
    "kind": "hnsw",
    "approximate_from": 20_000,
    "m": 16,
    "ef_construction": 64,
    "ef_search": 100,
}
"""Defaults of `index` where Postgres searches."""


class Store(Settings):
    """The store of people. A word alone is its kind."""

    kind: Literal["faiss", "pgvector"] = Field(
        "faiss", description="where searches run: in the memory of each replica, or in Postgres"
    )
    url: str | None = Field(
        None,
        description="journal, as SQLAlchemy writes it; default $PRESENCE_STORE_URL, else SQLite in directory",
    )
    directory: Path | None = Field(None, description="SQLite file and snapshots; default ~/.presence/store")
    replicas: Replicas = Field(Replicas(max_batch_size=64), description="what Ray gives it")
    index: Index = Index()
    snapshot_every_s: float = Field(300.0, gt=0, description="seconds between snapshots")
    compact_every_s: float | None = Field(
        86_400.0,
        gt=0,
        description="Postgres: seconds until deletions have left the tables, which are locked while they are "
        "rewritten; null: never, run `presence store compact`",
    )
    when_away: Literal["fail", "stale"] = Field(
        "fail", description="searches while the journal is away: 503, or answers from memory with their age"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_kind(cls, data: object) -> object:
        if isinstance(data, str):
            data = {"kind": data}
        if isinstance(data, dict) and data.get("kind") == "pgvector":
            given = {} if data.get("index") is None else data["index"]
            return {**data, "index": {**PGVECTOR_INDEX, **given}} if isinstance(given, dict) else data
        return data

    @model_validator(mode="after")
    def _fits_pgvector(self) -> "Store":
        index = self.index
        if self.kind != "pgvector":
            return self
        if index.kind not in ("hnsw", "flat") or index.gpu:
            raise ValueError("pgvector has index.kind hnsw or flat, without a GPU")
        if index.m > 100 or not 2 * index.m <= index.ef_construction <= 1000 or index.ef_search > 1000:
            raise ValueError(
                "pgvector takes index.m up to 100, index.ef_construction from 2 * m to 1000, "
                "index.ef_search up to 1000"
            )
        if self.when_away == "stale":
            raise ValueError("pgvector has no memory to answer from: when_away is fail")
        return self


def store_location(settings: Store, environment_url: str | None) -> tuple[str, Path]:
    """URL of the journal and directory of the store. environment_url: $PRESENCE_STORE_URL."""
    directory = (settings.directory or DEFAULT_STORE_DIR).expanduser()
    return settings.url or environment_url or f"sqlite:///{directory / 'presence.db'}", directory


class AppArgs(Settings):
    """The `args` of the application in a Serve config file."""

    models: tuple[ModelFile, ...] = Field((), description="models written into the config itself")
    models_dir: Path | None = Field(
        None,
        description="model files and weights; default $PRESENCE_MODELS_DIR, else ~/.presence/models",
    )
    gateway: Gateway = Gateway()
    media: Media = Media()
    store: Store = Store()
    speech: Speech = Speech()


def read_model_file(path: Path) -> ModelFile:
    """Reads one model file. Raises ConfigurationError that names the file, the key and the remedy."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {unreadable(error)}") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path}: a model file is a mapping with at least name and backend")
    try:
        model = ModelFile.model_validate(
            {**data, "name": path.stem if data.get("name") is None else data["name"]}
        )
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {explain(error)}") from None
    model._path = path
    return model


def all_models(args: AppArgs, models_dir: Path) -> tuple[ModelFile, ...]:
    """Models of the config, then those of the models directory by file name.

    A model of the config replaces an installed one of its name: the config adds what Ray gives it, or
    disables it. Raises ConfigurationError for a name that two models of one of these places share.
    """
    paths = sorted([*models_dir.glob("*.yaml"), *models_dir.glob("*.yml")])
    installed = [read_model_file(path) for path in paths]
    for models in (args.models, installed):
        _refuse_duplicates(models)
    written = {model.name for model in args.models}
    for model in installed:
        if model.name in written:
            logger.info("model %s of the config replaces the installed one", model.name)
    return (*args.models, *(model for model in installed if model.name not in written))


def _refuse_duplicates(models: Iterable[ModelFile]) -> None:
    seen: dict[str, ModelFile] = {}
    for model in models:
        if other := seen.get(model.name):
            raise ConfigurationError(
                f"two models are named {model.name!r}; rename one of them: {other.where}, {model.where}"
            )
        seen[model.name] = model
