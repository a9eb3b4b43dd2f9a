"""Prometheus metrics of the whole cluster: each node's exporter is read, families are merged."""

import asyncio
from collections.abc import Iterable

import httpx
import ray

from engines.errors import Busy

TIMEOUT_S = 5.0


async def scrape() -> str:
    """The metrics of every living node. Raises Busy when no node's exporter answers."""
    nodes = await asyncio.to_thread(ray.nodes)
    urls = [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in nodes
        if node["Alive"] and node.get("MetricsExportPort")
    ]
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
        texts = await asyncio.gather(*(_read(client, url) for url in urls))
    if not any(texts):
        raise Busy("no node exports metrics yet; try again")
    return merge(texts)


async def _read(client: httpx.AsyncClient, url: str) -> str:
    try:
        response = await client.get(url)
    except httpx.HTTPError:
        return ""
    return response.text if response.is_success else ""


def merge(texts: Iterable[str]) -> str:
    """One exposition of several: each family's comments once, its samples together."""
    comments: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                described = comments.setdefault(family, [])
                if line not in described:
                    described.append(line)
            elif line:
                samples.setdefault(family, []).append(line)
    families = [family for family in comments if family in samples]
    return "".join(f"{line}\n" for family in families for line in (*comments[family], *samples[family]))
