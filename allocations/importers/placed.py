"""JSON and YAML read so that lists know on which lines of the text their entries stand."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator
from itertools import chain
from typing import Any

import yaml

from .rows import UnreadableInputError

DECODER = json.JSONDecoder()
MOST_CHARACTERS = 50_000_000  # several times what may be written without aliases
GAP = re.compile(r"[ \t\r\n,:]*")  # what lies between two values


class Items(list[Any]):
    """A list with the line on which each of its items begins."""

    def __init__(self, items: Iterable[Any], lines: Iterable[int]) -> None:
        super().__init__(items)
        self.lines = list(lines)

    def placed(self) -> Iterator[tuple[int, Any]]:
        """Each item with its line."""
        return zip(self.lines, self, strict=True)


class Fields(dict[Hashable, Any]):
    """A mapping with the line on which the value of each key begins."""

    def __init__(self, fields: dict[Hashable, Any], lines: dict[str, int]) -> None:
        super().__init__(fields)
        self.lines = lines


def from_json(text: str) -> Any:
    """What the JSON text says; its list, or the lists right in its object, are Items.

    Raises:
        UnreadableInputError: it is no JSON; the sentence says where.
    """
    try:
        return _placed(json.loads(text), text)
    except json.JSONDecodeError as error:
        raise UnreadableInputError(f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except (RecursionError, ValueError):  # the latter: a number of thousands of digits
        raise UnreadableInputError("not a list of services: it is nested too deep or holds absurd numbers") from None


def _placed(found: Any, text: str) -> Any:
    """`found`, which is what the text says, so that nothing here need look for faults of the text."""
    at = _past_gap(text, 0)
    if isinstance(found, list):
        return _items(text, at)
    if isinstance(found, dict):
        parts = _parts(text, at)
        for (_, key), (start, value) in zip(parts, parts, strict=True):
            found[key] = _items(text, start) if isinstance(value, list) else value
    return found


def _items(text: str, at: int) -> Items:
    items, lines = [], []
    line, counted = 1, 0
    for start, value in _parts(text, at):
        line, counted = line + text.count("\n", counted, start), start
        items.append(value)
        lines.append(line)
    return Items(items, lines)


def _parts(text: str, at: int) -> Iterator[tuple[int, Any]]:
    """What the list or the object that begins at `at` consists of: its items, or its keys and values by turns."""
    at = _past_gap(text, at + 1)
    while text[at] not in "]}":
        value, end = DECODER.raw_decode(text, at)
        yield at, value
        at = _past_gap(text, end)


def _past_gap(text: str, at: int) -> int:
    gap = GAP.match(text, at)
    return gap.end() if gap else at


class Loader(yaml.BaseLoader):
    """Builds nothing but text, Items and Fields, and not more of them than could be written out."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.weights: dict[yaml.Node, int] = {}

    def construct_sequence(self, node: yaml.SequenceNode, deep: bool = False) -> Items:
        items = super().construct_sequence(node, deep)
        self._weigh(node, node.value)
        return Items(items, [_line(item) for item in node.value])

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Fields:
        lines = {key.value: _line(value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
        fields = super().construct_mapping(node, deep)
        self._weigh(node, chain.from_iterable(node.value))
        return Fields(fields, lines)

    def _weigh(self, node: yaml.Node, parts: Iterable[yaml.Node]) -> None:
        """Refuse what a few aliases of aliases make of a short text: a report that shows it would fill the memory."""
        weight = 1 + sum(self.weights.get(part, len(part.value) + 1) for part in parts)
        if weight > MOST_CHARACTERS:
            raise yaml.constructor.ConstructorError(
                problem="its aliases make it too large", problem_mark=node.start_mark
            )
        self.weights[node] = weight


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def from_yaml(text: str) -> Any:
    """What the YAML text says. Every value is read as text: no `no` becomes false, no `22:22` a number.

    Raises:
        UnreadableInputError: it is no YAML; the sentence says where.
    """
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 see Loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UnreadableInputError(f"not YAML: {error.problem or error.context}{place}") from None
    except yaml.YAMLError as error:
        raise UnreadableInputError(f"not YAML: {' '.join(str(error).split())[:200]}") from None
    except (RecursionError, ValueError):
        raise UnreadableInputError("not a list of services: it is nested too deep or holds broken values") from None
