"""The `presence` command."""

import logging
import os
import signal
import socket
import tempfile
import threading
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from engines.errors import ConfigurationError
from graphs import cli_models, cli_store, haproxy, ray_runtime
from graphs.cli_calibrate import calibrate
from graphs.serve_config import APPLICATION, application_args, read_config
from graphs.settings import AppArgs

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLL_S = 0.5
SLOW_S = 60
"""After it, what Serve says of a part that is not ready is told."""
FINISH_S = 20
"""For what is in flight when it is stopped; Serve replaces a front that passes no health check for longer."""

main = typer.Typer(no_args_is_help=True, add_completion=False, help="Faces, voices and speech on Ray Serve.")
main.add_typer(cli_models.app, name="models", help="List, install and remove models.")
main.add_typer(cli_store.app, name="store", help="Export, import and look after the store of people.")
main.command()(calibrate)
console = Console(stderr=True, highlight=False)


@main.callback()
def _root() -> None:
    """Keeps the commands as subcommands."""


@main.command()
def serve(
    config: Annotated[Path, typer.Option(help="Serve config file")] = Path("config/local.yaml"),
    host: Annotated[str | None, typer.Option(help="address to listen on; default: the config's")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="port to listen on; default: the config's")
    ] = None,
    models_dir: Annotated[Path | None, typer.Option(help="model files and weights")] = None,
    insecure_public: Annotated[
        bool, typer.Option("--insecure-public", help="listen beyond loopback without API keys")
    ] = False,
) -> None:
    """Start the service on this machine and wait; Ctrl-C stops it."""
    try:
        data = read_config(config)
        data["http_options"] = http = http_options(data, host, port)
        arguments = application_args(data, models_dir, config)
        refuse_open_door(http["host"], arguments, insecure_public=insecure_public)
        run(data, arguments)
    except ConfigurationError as error:
        console.print("[red]error[/red]", end=" ")
        console.print(error.message, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


def http_options(data: dict[str, Any], host: str | None, port: int | None) -> dict[str, Any]:
    """The `http_options` of a config; host and port, when given, go before its own.

    What neither names is 127.0.0.1 and 8080, not what Serve takes for a config file: every address, 8000.
    """
    given = data.get("http_options") or {}
    if not isinstance(given, dict):
        raise ConfigurationError("http_options: a mapping is expected, such as {host: 127.0.0.1, port: 8080}")
    asked = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    options = {"host": "127.0.0.1", "port": 8080, **given, **asked}
    if not isinstance(options["host"], str):
        raise ConfigurationError(f"http_options.host: {options['host']!r} is no address")
    if type(options["port"]) is not int or not 0 < options["port"] < 65536:
        raise ConfigurationError(f"http_options.port: {options['port']!r} is no number from 1 to 65535")
    return options


def refuse_open_door(host: str, arguments: AppArgs, *, insecure_public: bool) -> None:
    """Raises ConfigurationError for an address beyond loopback without API keys."""
    keys = arguments.gateway.api_keys_file or os.environ.get("PRESENCE_API_KEYS")
    if host in LOOPBACK or keys or insecure_public:
        return
    raise ConfigurationError(
        f"refusing to listen on {host} without API keys: set gateway.api_keys_file or PRESENCE_API_KEYS, "
        "or pass --insecure-public"
    )


def refuse_taken_port(host: str, port: int) -> None:
    """Raises ConfigurationError when the front could not listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as HAProxy does
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host} port {port}: {error.strerror}; choose others with --host and --port"
            ) from None


def run(data: dict[str, Any], arguments: AppArgs) -> None:
    """Starts Ray and Serve in this process, shows progress, waits for a signal, stops both."""
    http = data["http_options"]
    refuse_taken_port(http["host"], http["port"])
    with tempfile.TemporaryDirectory(prefix="presence-") as directory:
        ray_runtime.protect_token(Path(path) if (path := os.environ.get("RAY_AUTH_TOKEN_PATH")) else None)
        haproxy.tell_front(Path(directory), http["host"])
        os.environ.update(ray_runtime.environment(port=http["port"], directory=Path(directory)))
        ray_runtime.lengthen_turns()
        from graphs.app import app  # noqa: PLC0415 - Ray reads its environment when it is imported

        _start(data, app(arguments), Path(directory))


def _start(data: dict[str, Any], application: Any, directory: Path) -> None:
    import ray  # noqa: PLC0415 - Ray reads its environment when it is imported
    from ray import serve as ray_serve  # noqa: PLC0415

    http = data["http_options"]
    console.print(f"starting Ray; its logs are in {directory}/r", soft_wrap=True)
    ray_runtime.start(ray.init, directory=directory, tell=console.print)
    ray_runtime.end_monitors(ray._private.worker._global_node)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    stop, hurry, ready = threading.Event(), threading.Event(), False
    for number in (signal.SIGINT, signal.SIGTERM):  # after Ray, which sets its own
        signal.signal(number, lambda *_: (hurry if stop.is_set() else stop).set())
    try:
        # The gateway writes a line for each request; Serve would add its own, and one for each call.
        log = {"enable_access_log": False, **(data.get("logging_config") or {})}
        ray_serve.start(
            proxy_location=data.get("proxy_location"),
            http_options={**http, "host": "127.0.0.1"},  # of the gateways; haproxy.py has that of the front
            logging_config=log,
        )
        target = ray_serve.RunTarget(application, name=APPLICATION, route_prefix="/", logging_config=log)
        ray_serve.run_many([target], wait_for_applications_running=False)
        url = _url(http["host"], http["port"])
        if ready := _wait_until_ready(stop, url):
            _welcome(url)
            stop.wait()
        console.print("stopping ...")
        if not haproxy.let_finish(os.getpid(), 1, hurry.wait) and not hurry.is_set():
            console.print(
                f"answering what is in flight, for {FINISH_S} s at most; Ctrl-C again stops at once"
            )
            haproxy.let_finish(os.getpid(), FINISH_S, hurry.wait)
    finally:
        with redirect_stdout(StringIO()):  # Ray reports as a failure that Serve's controller ends
            if ready:  # else nobody has been served, and what cannot start would be waited for
                ray_runtime.while_it_lives(ray._private.worker._global_node, ray_serve.shutdown)
            ray.shutdown()


def _wait_until_ready(stop: threading.Event, url: str) -> bool:
    """Prints a line for each part that becomes ready, tells which load; waits for the front to answer too.

    False when stopped; raises ConfigurationError when a part failed.
    """
    from ray import serve as ray_serve  # noqa: PLC0415 - Ray reads its environment when it is imported

    started, ready, waits = time.monotonic(), set[str](), set[str]()
    with console.status("loading ...", refresh_per_second=4) as line:  # in a terminal only
        while not stop.wait(POLL_S):
            application = ray_serve.status().applications.get(APPLICATION)
            if application is None:
                continue
            for name, deployment in application.deployments.items():
                if deployment.status.value == "HEALTHY" and name not in ready:
                    ready.add(name)
                    console.print(f"  ready  {name}  [dim]{time.monotonic() - started:.1f} s[/dim]")
                elif deployment.message and name not in ready | waits and time.monotonic() > started + SLOW_S:
                    waits.add(name)
                    told = " ".join(deployment.message.split())
                    console.print(f"  waits  {name}  {told}", markup=False, soft_wrap=True)
            line.update(f"loading {', '.join(sorted(application.deployments.keys() - ready)) or '...'}")
            if application.status.value == "RUNNING" and _answers(f"{url}/readyz"):
                return True
            if application.status.value in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise ConfigurationError(f"the application failed to start: {_reasons(application)}")
    return False


def _reasons(application: Any) -> str:
    """Why deployments failed, each by the last line of its traceback, else what Serve says of it all."""
    told = {name: one.message.strip() for name, one in application.deployments.items()}
    lines = [f"{name}: {message.splitlines()[-1].strip()}" for name, message in told.items() if message]
    return "; ".join(lines) or str(application.message)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _url(host: str, port: int) -> str:
    """Where the front answers on this machine."""
    near = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def _welcome(url: str) -> None:
    console.print(f"\npresence is ready at [bold]{url}[/bold]\nAPI page: {url}/docs\n\nTry:", soft_wrap=True)
    console.print(f"  curl -s {url}/v1/models\n", soft_wrap=True)


if __name__ == "__main__":
    main()
