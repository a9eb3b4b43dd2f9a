"""Rules of the house that no linter knows."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("engines", "deployments", "graphs")
READS_ENVIRONMENT = {Path("graphs/app.py"), Path("graphs/cli.py")}
FROM_ENVIRONMENT = {"envvar", "auto_envvar_prefix"}
"""What Typer and Click call the variables of an option."""
FILLED_FROM_ENVIRONMENT = {
    Path("graphs/cli_calibrate.py"),  # PRESENCE_MODELS_DIR
    Path("graphs/cli_models.py"),  # PRESENCE_MODELS_DIR, PRESENCE_MIRROR
    Path("graphs/cli_store.py"),  # PRESENCE_STORE_URL
}
DUMPING_GROUNDS = {"util", "utils", "helper", "helpers", "common", "misc", "base"}
MOST_LINES = 400
PATHS = ("work", "root", "tmp", "mnt", "Users")
"""Top-level directories of the machine that a file was written on, or of a scratch place on it."""
HOSTS = (("pypi", "org"), ("python", "hosted"), ("crates", "io"), ("npmjs", "org"), ("proxy", "golang"))
"""Package registries, in two parts."""


def modules() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def tracked() -> list[Path]:
    """Every file of the repository that is text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git repository")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def places(kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[tuple[str, ast.AST]]:
    """Every such node of the rooms, with `file:line`."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def reads_environment(node: ast.AST) -> bool:
    words = {"environ", "environb", "getenv", "getenvb"}
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and bool(words & {alias.name for alias in node.names})
    return (
        isinstance(node, ast.Attribute)
        and node.attr in words
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    )


def test_only_the_builder_and_the_command_read_the_environment() -> None:
    found = {place for place, node in places((ast.Attribute, ast.ImportFrom)) if reads_environment(node)}
    assert {Path(place.split(":")[0]) for place in found} == READS_ENVIRONMENT


def test_only_the_options_of_the_command_are_filled_from_the_environment() -> None:
    found = {place for place, node in places(ast.keyword) if getattr(node, "arg", "") in FROM_ENVIRONMENT}
    assert {Path(place.split(":")[0]) for place in found} == FILLED_FROM_ENVIRONMENT


@pytest.mark.parametrize(
    ("attribute", "home"),
    [
        ("bind", {"graphs/app.py"}),
        ("remote", {"graphs/clients/remote.py"}),
        ("deployment", {"graphs/app.py"}),
    ],
)
def test_one_place_binds_and_one_calls_handles(attribute: str, home: set[str]) -> None:
    """`socket.bind` is another thing; `deployment` is that of `ray.serve`."""
    owners = {"deployment": {"serve", "ray_serve"}}.get(attribute)
    found = {
        place.split(":")[0]
        for place, node in places(ast.Attribute)
        if isinstance(node, ast.Attribute)
        and node.attr == attribute
        and (owners is None or (isinstance(node.value, ast.Name) and node.value.id in owners))
        and not (isinstance(node.value, ast.Name) and node.value.id in {"server", "probe"})
    }
    assert found == home


def test_no_module_is_a_dumping_ground() -> None:
    assert not [path for path in tracked() if path.suffix == ".py" and path.stem in DUMPING_GROUNDS]


def test_modules_stay_short() -> None:
    lines = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def swallows_everything(handler: ast.AST) -> bool:
    """Whether a handler takes every exception and does not raise it again, after cleaning up, as it came."""
    assert isinstance(handler, ast.ExceptHandler)
    names = (
        {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else set()
    )
    broad = handler.type is None or bool(names & {"Exception", "BaseException"})
    last = handler.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def test_no_except_swallows_everything() -> None:
    assert not [place for place, handler in places(ast.ExceptHandler) if swallows_everything(handler)]


def test_every_module_says_what_it_is() -> None:
    assert not [
        path for path in modules() if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]


def test_the_readme_names_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "cluster" / "README.md"]
    names = [str(page.relative_to(ROOT)) for page in pages if page in tracked()]
    assert [name for name in sorted(names) if f"({name})" not in readme] == []


def test_links_between_pages_lead_to_files() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in tracked()
        if page.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_no_file_names_this_machine_or_a_registry() -> None:
    forbidden = [rf"(?<![\w.])/{name}/" for name in PATHS]
    forbidden += [rf"{one}\.?{two}" for one, two in HOSTS]
    pattern = re.compile("|".join(forbidden).encode())
    found = {
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked()
        for match in pattern.finditer(path.read_bytes())
    }
    assert found == set()
