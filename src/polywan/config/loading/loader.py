"""Reads the file and its `conf.d`; places every problem. A bad file changes nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, Final

from polywan import files
from polywan.config.errors import ConfigError, Problem, UnreadableError, spoken
from polywan.config.faults import ConfigFault, Path, dotted
from polywan.config.loading.check_parts import check
from polywan.config.loading.shadowed_rules import never_matching
from polywan.config.loading.validate import read_parts
from polywan.config.model.config import Config

_LARGEST: Final = 16 * 1024 * 1024
"""Bytes; a file that is larger is something else (a device, a disk image) and would only fill memory."""

_DEEPEST: Final = 8
_PLACE: Final = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)$")
_NOT_ALLOWED: Final = "use sudo, or give this user read access"
_NOT_TOML: Final = "syntax"

_SYNTAX_HINTS: Final = (
    ("Invalid value", 'text needs quotes, for example interface = "eth1"'),
    ("Cannot declare", "this table is defined twice: merge the two"),
    ("Cannot overwrite", "this key is set twice: keep one"),
    ("Cannot mutate", "this table is already defined: merge the two"),
    ("Unterminated", "a closing quote or bracket is missing; is the file complete?"),
    ("Unclosed", "a closing bracket is missing; is the file complete?"),
    ("Expected '='", "write a key and its value as key = value"),
    ("Invalid statement", "expected a [table], key = value or # comment"),
    ("Expected newline", "write each key = value on its own line"),
    ("Expected ']'", "a closing bracket is missing"),
    ("Illegal character", "text must end on the line it begins on; control characters are not allowed"),
    ("Unescaped '\\'", "write \\\\ for a backslash, or use single quotes"),
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A good configuration, and what was found in reading it.

    Attributes:
        warnings: what in it is probably not what its author meant.
        rules_at: file and line of each rule.
        texts: what it was read from, by file, in order.
    """

    config: Config
    warnings: tuple[Problem, ...] = ()
    rules_at: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


def load(path: FilePath) -> Config:
    """Read a configuration file and the ``conf.d/*.toml`` next to it, in the order of their names.

    Tables are merged key by key, a later file wins for single values, and rules are appended.

    Raises:
        ConfigError: with every problem that was found.
    """
    return load_with_warnings(path).config


def load_with_warnings(path: FilePath) -> Loaded:
    """Read a configuration as `load` does, and look for what can have no effect.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems: list[Problem] = []
    return _loaded_texts(_texts(path, problems), problems)


def file_texts(path: FilePath) -> dict[str, str]:
    """Return what a configuration is read from, by file, in order; `load_texts` makes of it what `load` does.

    Raises:
        ConfigError: a file cannot be read.
    """
    texts, problems = readable_texts(path)
    _refuse(problems)
    return texts


def readable_texts(path: FilePath) -> tuple[dict[str, str], list[Problem]]:
    """Return what can be read of what `file_texts` returns, and what is wrong with the rest."""
    problems: list[Problem] = []
    return _texts(path, problems), problems


def file_text(path: FilePath) -> str:
    """Return the text of a file, which may be a pipe, as `load` reads one; what it says is not looked at.

    Raises:
        ConfigError: it cannot be read.
    """
    problems: list[Problem] = []
    text = _file_text(path, problems, pipes=True)
    _refuse(problems)
    return text or ""


def load_texts(texts: Mapping[str, str]) -> Loaded:
    """Read a configuration from what `file_texts` returned, maybe elsewhere.

    Raises:
        ConfigError: with every problem that was found.
    """
    return _loaded_texts(texts, [])


def load_as_if(path: FilePath, text: str) -> Loaded:
    """Read a configuration as `load_with_warnings` would if the file had this text; the ``conf.d`` beside it counts.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems: list[Problem] = []
    return _loaded_texts(_texts(path, problems, main=text), problems)


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise (UnreadableError if all(p.hint == _NOT_ALLOWED for p in problems) else ConfigError)(problems)


def _texts(path: FilePath, problems: list[Problem], main: str | None = None) -> dict[str, str]:
    # Only the file that somebody names may be a pipe, as `<(…)` of a shell.
    texts = {str(path): _file_text(path, problems, pipes=True) if main is None else main}
    for file in _drop_ins(path.parent / "conf.d", problems):
        texts[str(file)] = _file_text(file, problems, pipes=False)
    return {name: text for name, text in texts.items() if text is not None}


def _loaded_texts(texts: Mapping[str, str], problems: list[Problem]) -> Loaded:
    sources = [source for name, text in texts.items() if (source := _parsed(text, name, problems))]
    _refuse(problems)
    return replace(_loaded(sources), texts=texts)


def load_text(text: str, name: str = "config") -> Config:
    """Read a configuration from text; problems name it `name`.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems: list[Problem] = []
    source = _parsed(text, name, problems)
    if source is None:
        raise ConfigError(problems)
    return _loaded([source]).config


@dataclass(frozen=True)
class _Source:
    """One file, and what is needed to find a merged value in it again."""

    name: str
    text: str
    tables: dict[str, Any]

    @cached_property
    def lines(self) -> dict[Path, int]:
        from polywan.config.loading.toml_lines import key_lines

        return key_lines(self.text)

    @property
    def rule_count(self) -> int:
        rules = self.tables.get("rules")
        return len(rules) if isinstance(rules, list) else 0


def _loaded(sources: Sequence[_Source]) -> Loaded:
    raw: dict[str, Any] = {}
    for source in sources:
        raw = _merged(raw, source.tables)
    parts, faults = read_parts(raw)
    faults += check(parts)
    if faults:
        raise ConfigError(_problems(faults, sources))
    config = Config.model_validate(
        {
            "uplinks": parts.uplinks,
            "health": parts.health,
            "policies": parts.policies,
            "rules": parts.rules,
            "global": parts.global_,
            "hooks": parts.hooks,
        }
    )
    places = tuple(_place(("rules", place), sources) for place in range(len(config.rules)))
    return Loaded(config, tuple(_problems(never_matching(config.rules), sources)), places)


def _merged(below: dict[str, Any], above: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """Lay one file's tables over another's; neither is changed."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and depth < _DEEPEST:
            result[key] = _merged(old, value, depth + 1)
        elif depth == 0 and key == "rules" and old is not None:
            # What is not a list stays, so that it is reported whichever file it is in.
            result[key] = [*old, *value] if isinstance(old, list) and isinstance(value, list) else _unlisted(old, value)
        else:
            result[key] = value
    return result


def _unlisted(old: object, new: object) -> object:
    return new if isinstance(old, list) else old


def _problems(faults: Iterable[ConfigFault], sources: Sequence[_Source]) -> list[Problem]:
    """Place faults, and sort them as they stand in the files."""
    names = {source.name: place for place, source in enumerate(sources)}
    return sorted((_placed(fault, sources) for fault in faults), key=lambda p: _order(p, names))


def _placed(fault: ConfigFault, sources: Sequence[_Source]) -> Problem:
    message = fault.message
    if fault.other:
        message += f" {spoken(dotted(fault.other))} at {_place(fault.other, sources)}"
    return Problem(_place(fault.path, sources), dotted(fault.path), message, fault.hint)


def _place(wanted: Path, sources: Sequence[_Source]) -> str:
    """Return file and line of the longest beginning of a path that stands in a file."""
    best: tuple[int, str] = (-1, sources[0].name)
    offset = 0
    for source in sources:
        path = wanted
        if len(path) > 1 and path[0] == "rules" and isinstance(path[1], int):
            path = ("rules", path[1] - offset, *path[2:])
        offset += source.rule_count
        length = next((n for n in range(len(path), 0, -1) if path[:n] in source.lines), 0)
        if length and length >= best[0]:
            best = (length, f"{source.name}:{source.lines[path[:length]]}")
    return best[1]


def _order(problem: Problem, names: dict[str, int]) -> tuple[int, int]:
    name, _, line = problem.where.rpartition(":")
    return (names[name], int(line)) if name in names and line.isdigit() else (names.get(problem.where, 0), 0)


def _drop_ins(folder: FilePath, problems: list[Problem]) -> list[FilePath]:
    try:
        names = [file.name for file in folder.iterdir()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        problems.append(_unreadable(folder, error))
        return []
    # Dot files are the unfinished copies of editors and package managers.
    return [folder / name for name in sorted(names) if name.endswith(".toml") and not name.startswith(".")]


def _file_text(file: FilePath, problems: list[Problem], *, pipes: bool) -> str | None:
    try:
        content = files.content(file, _LARGEST + 1, pipes=pipes)
    except files.IrregularError as error:
        problems.append(Problem(str(file), "file", f"{error.strerror}; expected a configuration"))
        return None
    except (OSError, ValueError) as error:
        problems.append(_unreadable(file, error))
        return None
    if len(content) > _LARGEST:
        problems.append(Problem(str(file), "file", f"is larger than {_LARGEST >> 20} MiB; expected a configuration"))
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(Problem(f"{file}:{line}", "file", "is not UTF-8 text", "save it in UTF-8"))
        return None


def _unreadable(file: FilePath, error: Exception) -> Problem:
    reason = error.strerror or "input/output error" if isinstance(error, OSError) else "the name is not valid"
    hint = ""
    if isinstance(error, FileNotFoundError):
        hint = 'five lines are enough: [uplinks.NAME] with interface = "…" for each link'
    elif isinstance(error, PermissionError):
        hint = _NOT_ALLOWED
    return Problem(str(file), "file", f"cannot be read: {reason.lower()}", hint)


def _parsed(text: str, name: str, problems: list[Problem]) -> _Source | None:
    try:
        text.encode()
        return _Source(name, text, tomllib.loads(text))
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        problems.append(Problem(f"{name}:{line}", _NOT_TOML, "contains half a character (a surrogate)"))
    except RecursionError:
        problems.append(Problem(name, _NOT_TOML, "brackets are nested too deeply for a configuration"))
    except ValueError as error:
        problems.append(_syntax(error, name, text))
    return None


def _syntax(error: ValueError, name: str, text: str) -> Problem:
    message = str(error)
    found = _PLACE.search(message)
    if not found:
        # The one error of the parser without a place: Python's limit on the digits of a number.
        return Problem(name, _NOT_TOML, "is not valid TOML: a number has too many digits")
    said = message[: found.start()]
    hint = next((hint for start, hint in _SYNTAX_HINTS if said.startswith(start)), "")
    if found[1]:
        where, place = found[1], f"at column {found[2]}"
    else:
        where, place = str(text.count("\n", 0, len(text.rstrip())) + 1), "at the end"
        hint = "a value, a closing quote or a bracket is missing; is the file complete?"
    return Problem(f"{name}:{where}", _NOT_TOML, f"is not valid TOML {place}: {said[:1].lower()}{said[1:]}", hint)


def names_below(file: FilePath, texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts of a configuration's files by their names below its directory, instead of by their paths."""
    return {str(FilePath(name).absolute().relative_to(file.absolute().parent)): text for name, text in texts.items()}


def paths_beside(file: FilePath, texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts by the paths that their files have beside a configuration: the reverse of `names_below`."""
    return {str(file.parent / name): text for name, text in texts.items()}
