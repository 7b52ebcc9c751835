"""Load JSON and YAML into lists and dictionaries that know the lines on which their items begin."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator
from itertools import chain
from typing import Any

import yaml

from .rows import RowError, UnreadableInputError, excerpt

MAX_CHARACTERS = 50_000_000  # several times the maximum size of an input without aliases
SEPARATORS = re.compile(r"[ \t\r\n,:]*")


class DuplicateKeyError(RowError):
    """Raised if a JSON object contains a key more than once, because nobody knows which value is meant."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {excerpt(key)} occurs more than once in one object")


class ListWithLines(list[Any]):
    """A list that knows the line on which each of its items begins."""

    def __init__(self, items: Iterable[Any], lines: Iterable[int]) -> None:
        super().__init__(items)
        self.lines = list(lines)

    def with_lines(self) -> Iterator[tuple[int, Any]]:
        """Return each item with its line."""
        return zip(self.lines, self, strict=True)


class DictWithLines(dict[Hashable, Any]):
    """A dictionary that knows the line on which the value of each key begins."""

    def __init__(self, fields: dict[Hashable, Any], lines: dict[str, int]) -> None:
        super().__init__(fields)
        self.lines = lines


def _unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object as a dictionary.

    Raises:
        DuplicateKeyError: a key occurs more than once.
    """
    value: dict[str, Any] = {}
    for key, member in members:
        if key in value:
            raise DuplicateKeyError(key)
        value[key] = member
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_unique_members)


def load_json(text: str) -> Any:
    """Return the content of a JSON text.

    A list at the top level, and lists that are values of an object at the top level, become ListWithLines.

    Raises:
        UnreadableInputError: the text isn't valid JSON, or an object contains a key twice; the message says where.
    """
    try:
        return _with_lines(json.loads(text), text)
    except UnreadableInputError:
        raise
    except json.JSONDecodeError as error:
        raise UnreadableInputError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (RecursionError, ValueError):  # ValueError: a number has thousands of digits
        raise UnreadableInputError("not a list of services: it is nested too deeply or a number is too long") from None


def _with_lines(content: Any, text: str) -> Any:
    """Add lines to the content of a text, which is known to be valid JSON."""
    at = _skip_separators(text, 0)
    if isinstance(content, list):
        return _list_at(text, at)
    if isinstance(content, dict):
        values = _values_at(text, at)
        keys: set[str] = set()
        for (key_at, key), (start, value) in zip(values, values, strict=True):
            if key in keys:
                raise _at_line(DuplicateKeyError(key), text, key_at)
            keys.add(key)
            content[key] = _list_at(text, start) if isinstance(value, list) else value
    return content


def _list_at(text: str, at: int) -> ListWithLines:
    items, lines = [], []
    line, counted = 1, 0  # `line` is the line at the offset `counted`
    for start, value in _values_at(text, at):
        line, counted = line + text.count("\n", counted, start), start
        items.append(value)
        lines.append(line)
    return ListWithLines(items, lines)


def _values_at(text: str, at: int) -> Iterator[tuple[int, Any]]:
    """Return the offsets and values of the items of the list that begins at `at`.

    For an object, return those of its keys and values, alternating.
    """
    at = _skip_separators(text, at + 1)
    while text[at] not in "]}":
        try:
            value, end = DECODER.raw_decode(text, at)
        except DuplicateKeyError as error:
            raise _at_line(error, text, at) from None
        yield at, value
        at = _skip_separators(text, end)


def _at_line(error: DuplicateKeyError, text: str, at: int) -> UnreadableInputError:
    line = text.count("\n", 0, at) + 1
    return UnreadableInputError(f"{error} at line {line}")


def _skip_separators(text: str, at: int) -> int:
    match = SEPARATORS.match(text, at)
    return match.end() if match else at


class Loader(yaml.BaseLoader):
    """A YAML loader that builds only strings, ListWithLines and DictWithLines, and limits their total size."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.sizes: dict[yaml.Node, int] = {}

    def construct_sequence(self, node: yaml.SequenceNode, deep: bool = False) -> ListWithLines:
        items = super().construct_sequence(node, deep)
        self._check_size(node, node.value)
        return ListWithLines(items, [_line(item) for item in node.value])

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> DictWithLines:
        lines: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    problem = f"the key {excerpt(key.value)} occurs more than once in one object"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                lines[key.value] = _line(value)
        fields = super().construct_mapping(node, deep)
        self._check_size(node, chain.from_iterable(node.value))
        return DictWithLines(fields, lines)

    def _check_size(self, node: yaml.Node, children: Iterable[yaml.Node]) -> None:
        """Raise an error if the node, with all aliases expanded, is too large.

        A few aliases of aliases can turn a short text into one that would exhaust the memory when it is printed.
        """
        size = 1 + sum(self.sizes.get(child, len(child.value) + 1) for child in children)
        if size > MAX_CHARACTERS:
            raise yaml.constructor.ConstructorError(
                problem="its aliases make it too large", problem_mark=node.start_mark
            )
        self.sizes[node] = size


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def load_yaml(text: str) -> Any:
    """Return the content of a YAML text.

    All values are strings: `no` doesn't become a boolean, nor `22:22` a number.

    Raises:
        UnreadableInputError: the text isn't valid YAML; the message says where.
    """
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 see Loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UnreadableInputError(f"not YAML: {error.problem or error.context}{place}") from None
    except yaml.YAMLError as error:
        raise UnreadableInputError(f"not YAML: {' '.join(str(error).split())[:200]}") from None
    except (RecursionError, ValueError):
        raise UnreadableInputError(
            "not a list of services: it is nested too deeply or contains invalid values"
        ) from None
