"""Reads pipeline files and checks them at the border.

A file names data and settings only: networks, masks and methods by registered names, never code.
``${name}`` in a value stands for the parameter of that name; ``cubekit run --set name=value`` overrides it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cubekit import specs
from cubekit.errors import CatalogError, PipelineError, did_you_mean
from cubekit.pipeline.jobs import JOBS
from cubekit.pipeline.sections import Pipeline
from cubekit.security import load_yaml

_REFERENCE = re.compile(r"\$\{(\w+)\}")


def read_pipeline(path: Path, settings: Mapping[str, Any] | None = None) -> Pipeline:
    """Read and check a pipeline file.

    Parameters
    ----------
    path : pathlib.Path
        YAML file.
    settings : mapping, optional
        Values for parameters of the file, in place of those it states.

    Returns
    -------
    Pipeline
        Frozen record with all references resolved.

    Raises
    ------
    PipelineError
        Naming the key, with the nearest known one; or the parameter that is unknown or has no value.
    """
    raw = _load(path)
    parameters = raw.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise PipelineError(f"{path}: parameters must be lines of the form 'name: value'.")
    for name in settings or {}:
        if name not in parameters:
            raise PipelineError(f"{path} has no parameter {name!r}. {did_you_mean(name, parameters)}")
    parameters = parameters | dict(settings or {})
    missing = [name for name, value in parameters.items() if value is None]
    if missing:
        raise PipelineError(f"{path} needs a value for {missing}: add --set {missing[0]}=…")
    body = {str(key): _fill(value, parameters, path) for key, value in raw.items() if key != "parameters"}
    body = {key: value for key, value in body.items() if not _nothing_to_read(value)}
    if isinstance(body.get("train"), dict):
        body["train"] = _with_model(body["train"])
    kind = _kind(body, path)
    try:
        return kind(parameters=parameters, **body)
    except ValidationError as error:
        raise PipelineError(f"{path}: {_explain(error, kind)}") from error


def demo_of(path: Path) -> str | None:
    """Read which sample data a pipeline file names, before its parameters have values.

    Parameters
    ----------
    path : pathlib.Path
        YAML file.

    Returns
    -------
    str or None
        Its key ``demo``.

    Raises
    ------
    PipelineError
        If it is no pipeline file.
    """
    name = _load(path).get("demo")
    return None if name is None else str(name)


def _load(path: Path) -> dict[str, Any]:
    """Read the keys of a file."""
    try:
        raw = load_yaml(path)
    except CatalogError as error:
        raise PipelineError(str(error)) from error
    if not isinstance(raw, dict):
        raise PipelineError(f"{path} holds {type(raw).__name__}, expected keys such as source, cube, train.")
    return raw


def _fill(value: Any, parameters: Mapping[str, Any], path: Path) -> Any:
    """Replace ``${name}`` in strings at any depth; one reference alone keeps the parameter's type."""
    if isinstance(value, dict):
        return {key: _fill(item, parameters, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, parameters, path) for item in value]
    if not isinstance(value, str):
        return value
    for name in _REFERENCE.findall(value):
        if name not in parameters:
            hint = did_you_mean(name, parameters)
            raise PipelineError(f"{path} uses ${{{name}}}, which is not among its parameters. {hint}")
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return parameters[whole[1]]
    return _REFERENCE.sub(lambda match: str(parameters[match[1]]), value)


def _nothing_to_read(section: Any) -> bool:
    """Tell a section whose source was left empty: one file may serve scenes as well as tables."""
    if not isinstance(section, dict) or not section:
        return False
    return section.get("source") == "" or all(value == "" for value in section.values())


def _with_model(train: dict[str, Any]) -> dict[str, Any]:
    """Start from the settings of a ready model, if one is named; keys beside it win."""
    own = dict(train)
    name = own.pop("model", None)
    if name is None:
        return own
    ready = load_yaml(specs.find("models", str(name)) / "model.yaml")
    return {**ready["train"], **own}


def _kind(body: Mapping[str, Any], path: Path) -> type[Pipeline]:
    """Choose the words of the file by its task."""
    task = body.get("task", "classify")
    if task not in JOBS:
        raise PipelineError(f"{path}: key 'task': there is no task {task!r}. {did_you_mean(task, JOBS)}")
    return JOBS[task].words()


def _explain(error: ValidationError, kind: type[Pipeline]) -> str:
    """Say each problem in a sentence, with the nearest key where one is unknown."""
    return " ".join(_problem(problem, kind) for problem in error.errors())


def _problem(problem: Any, kind: type[Pipeline]) -> str:
    """Say one problem in a sentence."""
    where = ".".join(str(part) for part in problem["loc"]) or "file"
    if problem["type"] == "extra_forbidden":
        return (
            f"Unknown key {where!r}. {did_you_mean(problem['loc'][-1], _keys_at(kind, problem['loc'][:-1]))}"
        )
    if problem["type"] == "missing":
        return f"Key {where!r} is missing."
    found = "" if isinstance(problem["input"], dict) else f" (found {problem['input']!r})"
    message = problem["msg"].removeprefix("Value error, ")
    return f"Key {where!r}: {message}{found}." if problem["loc"] else f"{message[0].upper()}{message[1:]}."


def _keys_at(kind: type[Pipeline], location: tuple[str | int, ...]) -> list[str]:
    """List the keys that a section accepts."""
    section: type[BaseModel] = kind
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        kinds = [annotation, *getattr(annotation, "__args__", ())]
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        section = models[0]
    return list(section.model_fields)
