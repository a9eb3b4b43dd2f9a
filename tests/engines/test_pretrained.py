"""Checkpoints of transformers that do not fit: refused with the reason, without a path."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForTokenClassification, BertModel

from engines import pretrained
from engines.errors import ConfigurationError

SIZE: dict[str, Any] = dict.fromkeys(("hidden_size", "intermediate_size"), 8) | dict.fromkeys(
    ("num_hidden_layers", "num_attention_heads"), 1
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model: Any = BertForTokenClassification(BertConfig(**SIZE, vocab_size=9))
    model.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def opened(found: Path, kind: Any = BertForTokenClassification) -> Any:
    with pretrained.opening("bert", "Bert model"):
        return pretrained.network(kind, pretrained.directory("bert", found.parent))


def test_a_whole_checkpoint_is_loaded_ready_to_compute(checkpoint: Path) -> None:
    assert not opened(checkpoint).training


def test_a_checkpoint_of_another_class_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="bert: it is a checkpoint of BertForTokenClassification"):
        opened(checkpoint, BertModel)


def test_the_source_is_named_once() -> None:
    for said in ("bert could not be downloaded", "it lacks a file"):
        with (
            pytest.raises(ConfigurationError, match=r"^bert(:? )(could|it)") as caught,
            pretrained.opening("bert", "Bert model"),
        ):
            raise ConfigurationError(said)
        assert caught.value.message.count("bert") == 1


def test_weights_that_are_missing_are_not_made_up(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"bert: it lacks 1 weights, such as classifier\.weight"):
        opened(checkpoint)


@pytest.mark.parametrize("damage", ["empty", "text", "shape", "config"])
def test_damaged_files_are_told_without_a_path(checkpoint: Path, damage: str) -> None:
    file = checkpoint / "model.safetensors"
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "text":
        file.write_text("no weights")
    elif damage == "shape":
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps(config | {"hidden_size": 16}))
    else:
        (checkpoint / "config.json").write_text("{")
    with pytest.raises(
        ConfigurationError, match="bert: its files are incomplete, damaged, or no Bert model"
    ) as raised:
        opened(checkpoint)
    assert str(checkpoint.parent) not in raised.value.message
