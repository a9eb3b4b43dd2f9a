"""LocalAI's generic stores over HTTP against the running application, on three replicas."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.service

ROUTES = ("set", "get", "delete", "find")
KEYS = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]]
VALUES = ["east", "north", "up", "west"]


def send(client: httpx.Client, route: str, prefix: str = "", **body: object) -> httpx.Response:
    """Posts JSON in ASCII, so that it can name any character, lone surrogates too."""
    headers = {"content-type": "application/json"}
    return client.post(f"{prefix}/stores/{route}", content=json.dumps(body), headers=headers)


def ask(client: httpx.Client, route: str, prefix: str = "", **body: object) -> dict[str, Any]:
    response = send(client, route, prefix, **body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def done(client: httpx.Client, route: str, prefix: str = "", **body: object) -> None:
    response = send(client, route, prefix, **body)
    assert (response.status_code, response.content) == (200, b""), response.text


@pytest.fixture
def store() -> str:
    """A store that no other test uses."""
    return f"t-{uuid4().hex}"


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_set_get_find_delete(client: httpx.Client, store: str, prefix: str) -> None:
    where: dict[str, Any] = {"prefix": prefix, "store": store}
    done(client, "set", **where, keys=KEYS, values=VALUES)
    asked = [KEYS[2], [5, 5, 5], KEYS[0]]
    assert ask(client, "get", **where, keys=asked) == {"keys": [KEYS[2], KEYS[0]], "values": ["up", "east"]}
    assert ask(client, "find", **where, key=KEYS[0], topk=4) == {
        "keys": KEYS,
        "values": VALUES,
        "similarities": [1, 0, 0, -1],
    }
    assert ask(client, "find", **where, key=[2, 1, 0], topk=2)["values"] == ["east", "north"]
    done(client, "set", **where, keys=[KEYS[0]], values=["new"])
    assert ask(client, "get", **where, keys=[KEYS[0]])["values"] == ["new"]
    done(client, "delete", **where, keys=[KEYS[0], [5, 5, 5]])
    assert ask(client, "get", **where, keys=KEYS)["values"] == VALUES[1:]
    assert len(ask(client, "find", **where, key=KEYS[0], topk=1000)["keys"]) == 3


def test_both_prefixes_are_one_store(client: httpx.Client, store: str) -> None:
    done(client, "set", "/v1", store=store, keys=[[1]], values=["a"])
    assert ask(client, "get", store=store, keys=[[1]])["values"] == ["a"]


@pytest.mark.parametrize("header", [{"content-type": "application/x-www-form-urlencoded"}, {}])
def test_curls_own_header_and_none_will_do(client: httpx.Client, store: str, header: dict[str, str]) -> None:
    body = json.dumps({"store": store, "key": [1], "topk": 1}).encode()
    response = client.post("/stores/find", content=body, headers=header)
    assert (response.status_code, response.json()["keys"]) == (200, [])


def test_an_empty_store_answers_empty_lists(client: httpx.Client, store: str) -> None:
    assert ask(client, "find", store=store, key=[1, 2], topk=3) == {
        "keys": [],
        "values": [],
        "similarities": [],
    }
    assert ask(client, "get", store=store, keys=[[1, 2]]) == {"keys": [], "values": []}
    done(client, "delete", store=store, keys=[[1, 2]])


def test_absent_and_empty_are_the_default_store(client: httpx.Client, store: str) -> None:
    key = np.random.default_rng().standard_normal(3).astype(np.float32).tolist()
    done(client, "set", keys=[key], values=[store])
    for where in ({}, {"store": ""}, {"store": "default"}, {"backend": "local-store"}):
        assert ask(client, "get", keys=[key], **where)["values"] == [store]
    assert ask(client, "get", store=store, keys=[key])["values"] == []
    done(client, "delete", keys=[key])


def test_the_length_of_keys_is_free_again_when_the_store_is_empty(client: httpx.Client, store: str) -> None:
    done(client, "set", store=store, keys=KEYS, values=VALUES)
    shorter = send(client, "set", store=store, keys=[[1, 2]], values=["a"])
    assert shorter.status_code == 400
    assert "3" in shorter.json()["error"]["message"]
    done(client, "delete", store=store, keys=KEYS)
    done(client, "set", store=store, keys=[[1, 2]], values=["a"])
    for _ in range(12):
        assert ask(client, "find", store=store, key=[1, 2], topk=9)["values"] == ["a"]


def test_what_one_set_is_found_at_once_by_all(service: Any, store: str) -> None:
    """Sixteen writers at once; each asks three times over connections of their own."""

    def write_and_look(number: int) -> list[str]:
        key = np.random.default_rng(number).standard_normal(16).astype(np.float32).tolist()
        with service.client() as here:
            done(here, "set", store=store, keys=[key], values=[str(number)])
        missed = []
        for _ in range(3):
            with service.client() as there:
                found = ask(there, "find", store=store, key=key, topk=1)
                if (found["keys"], found["values"]) != ([key], [str(number)]):
                    missed.append(str(found))
        return missed

    with ThreadPoolExecutor(16) as pool:
        assert [one for missed in pool.map(write_and_look, range(16)) for one in missed] == []


def test_values_are_any_text(client: httpx.Client, store: str) -> None:
    values = ["", '{"name": "Ada"}', "ü \U0001f600 \u2028", "long " * 20_000]
    keys = [[float(number), 1.0] for number in range(4)]
    done(client, "set", store=store, keys=keys, values=values)
    assert ask(client, "get", store=store, keys=keys) == {"keys": keys, "values": values}


def test_a_thousand_keys_and_six_mebibytes_in_one_request(client: httpx.Client, store: str) -> None:
    keys = [[float(number), 1.0] for number in range(1000)]
    values = [str(number) for number in range(999)] + ["x" * 6 * 2**20]
    done(client, "set", store=store, keys=keys, values=values)
    assert ask(client, "get", store=store, keys=keys) == {"keys": keys, "values": values}
    found = ask(client, "find", store=store, key=[1, 0], topk=1000)
    assert sorted(found["values"]) == sorted(values)
    done(client, "delete", store=store, keys=keys)
    assert ask(client, "find", store=store, key=[1, 0], topk=1)["keys"] == []


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("set", {}),
        ("set", {"keys": [], "values": []}),
        ("set", {"keys": [[1]], "values": []}),
        ("set", {"keys": [[1]], "values": ["a", "b"]}),
        ("set", {"keys": [[1], [1, 2]], "values": ["a", "b"]}),
        ("set", {"keys": [[]], "values": ["a"]}),
        ("set", {"keys": [[float("nan")]], "values": ["a"]}),
        ("set", {"keys": [[float("inf")]], "values": ["a"]}),
        ("set", {"keys": [[1e39]], "values": ["a"]}),
        ("set", {"keys": [["a"]], "values": ["a"]}),
        ("set", {"keys": [1], "values": ["a"]}),
        ("set", {"keys": [[0.0] * 16_385], "values": ["a"]}),
        ("set", {"keys": [[1]], "values": [5]}),
        ("set", {"keys": [[1]], "values": ["a\0b"]}),
        ("set", {"keys": [[1]], "values": ["\ud800"]}),
        ("set", {"keys": [[1]], "values": ["a"], "store": "../a"}),
        ("set", {"keys": [[1]], "values": ["a"], "store": "x" * 65}),
        ("get", {}),
        ("get", {"keys": []}),
        ("get", {"keys": [[]]}),
        ("get", {"keys": [[1e39]]}),
        ("get", {"keys": "all"}),
        ("delete", {"keys": []}),
        ("delete", {"keys": [[float("nan")]]}),
        ("find", {"key": [1]}),
        ("find", {"key": [1], "topk": 0}),
        ("find", {"key": [1], "topk": -1}),
        ("find", {"key": [1], "topk": 1001}),
        ("find", {"key": [1], "topk": 1.5}),
        ("find", {"key": [], "topk": 1}),
        ("find", {"topk": 1}),
        ("find", {"key": [1], "topk": 1, "store": "a b"}),
    ],
    ids=lambda part: str(part)[:60],
)
def test_bad_input_is_refused(client: httpx.Client, route: str, body: dict[str, object], prefix: str) -> None:
    response = send(client, route, prefix, **body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) <= {"code", "message", "type", "param"}
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert error["message"]


def test_what_is_no_json_is_refused(client: httpx.Client) -> None:
    for route in ROUTES:
        response = client.post(f"/stores/{route}", content=b"{")
        assert response.status_code == 400
        assert response.json()["error"]["message"] == "the request body is not valid JSON"


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("route", ROUTES)
def test_a_key_is_needed(service: Any, route: str, prefix: str) -> None:
    response = httpx.post(f"{service.url}{prefix}/stores/{route}", json={}, trust_env=False)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == 401
