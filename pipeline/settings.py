"""How settings work: frozen groups without unknown keys, read from YAML and command line, explained when wrong.

Precedence: command line, then the YAML file of `--config`, then the defaults. Which settings there are is in
`pipeline.config` and `pipeline.train_config`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pipeline.errors import InputError


class Settings(BaseModel):
    """Base of every settings group."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, given: Any) -> Any:
        """YAML reads yes, no, on and off as booleans, which pydantic takes for 1 and 0."""
        for name, value in given.items() if isinstance(given, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and not (field and field.annotation is bool):
                raise ValueError(f"{name}: {value} (yes or no) where a value is needed")
        return given

    def digest(self) -> str:
        """sha256 over the canonical JSON of all settings."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


S = TypeVar("S", bound=Settings)


def resolve(model: type[S], file: Path | None, overrides: Mapping[str, Any]) -> S:
    """Settings from the defaults, a YAML file over them, and nested `overrides` (the command line) over both."""
    document = read_yaml(file) if file is not None else {}
    try:
        return model.model_validate(_merged(document, overrides))
    except ValidationError as error:
        where = f"--config {file}: " if file is not None else ""
        raise InputError(where + explain(error, model)) from error


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML would take the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        document = yaml.load(file.read_text(), _Loader)
    except OSError as error:
        raise InputError(f"--config {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise InputError(f"--config {file} is not valid YAML{at}: {problem}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InputError(f"--config {file} must hold `key: value` lines, it holds a {type(document).__name__}")
    return document


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """pydantic's findings as one line: each key, what is wrong, what was given."""
    return "; ".join(_finding(dict(found), model) for found in error.errors())


def _finding(found: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    key = ".".join(map(str, found["loc"]))
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        return f"unknown setting {key!r}{_suggestion(found['loc'], model)}"
    if not key or found["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message[0].lower()}{message[1:]}, got {found['input']!r}"


def _suggestion(loc: tuple[Any, ...], model: type[BaseModel] | None) -> str:
    """` (did you mean 'x'?)` for a misspelt key, from the fields of the settings group it stands in."""
    for name in loc[:-1]:
        field = model.model_fields.get(str(name)) if model else None
        inner = field.annotation if field else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    close = difflib.get_close_matches(str(loc[-1]), list(model.model_fields) if model else [], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def to_yaml(settings: Settings) -> str:
    """The resolved settings as YAML that `--config` reads back."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Human-readable differences of two settings trees, as `key: old -> new`."""
    found: list[str] = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found
