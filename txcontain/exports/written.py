"""A document of an export: YAML that every reader understands in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from attrs import frozen

# Text that no reader takes for anything else: YAML 1.1 and 1.2 differ in what is a number, a time
# or a truth value.
PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_/-]*(?:\.[A-Za-z0-9_/-]+)*")
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"}


@frozen
class Document:
    """A text, and what a person should know of it: what it could not say, a sentence each."""

    text: str
    notes: Sequence[str] = ()


class _Dumper(yaml.SafeDumper):
    """Quotes every text that could be taken for something else, and repeats what is there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """No anchors: a person has to look for what they mean."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = PLAIN.fullmatch(text) and text.lower() not in WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, None if plain else '"')


_Dumper.add_representer(str, _text)


def to_yaml(*documents: Mapping[str, Any]) -> str:
    """These documents, with their keys in the order in which they are."""
    text: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=10_000)
    return text


def filled(**values: Any) -> dict[str, Any]:
    """Those of the values that are not empty, nor no, nor 0."""
    return {name: value for name, value in values.items() if value}


def each_text(data: Any, change: Callable[[str], str]) -> Any:
    """Plain data with each text that is a value changed; keys stay."""
    if isinstance(data, str):
        return change(data)
    if isinstance(data, Mapping):
        return {key: each_text(value, change) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [each_text(value, change) for value in data]
    return data


def milliseconds(seconds: float) -> str:
    """A duration as Go reads it."""
    number = round(seconds * 1000)
    return f"{number // 1000}s" if number % 1000 == 0 else f"{number}ms"
