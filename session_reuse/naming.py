"""How `persist_session` gets its names and where it passes the session. Must never look into an argument's value."""

from __future__ import annotations

import inspect
import string
import typing
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from session_reuse.errors import ConfigurationError
from session_reuse.session import BrowserSession

Name = str | Callable[..., str] | None
"""A template over a function's arguments, a function of the same arguments, or None."""


def session_parameter(function: Callable[..., Any]) -> str | None:
    """Return the parameter that takes the session: the one annotated `BrowserSession`, else the one named `session`."""
    if isinstance(function, staticmethod | classmethod):
        raise ConfigurationError("persist_session goes below @staticmethod or @classmethod, next to the function")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(f"{function.__qualname__} is a generator: use reusable_session inside of it")
    parameters = inspect.signature(function).parameters
    for name, parameter in parameters.items():
        if _is_session(parameter.annotation, function):
            return _by_keyword(name, parameter, function)
    if "session" in parameters and parameters["session"].annotation is inspect.Parameter.empty:
        return _by_keyword("session", parameters["session"], function)
    return None


def _is_session(annotation: Any, function: Callable[..., Any]) -> bool:
    if isinstance(annotation, str):
        annotation = _resolved(annotation, function)
    choices = typing.get_args(annotation) or (annotation,)
    return any(isinstance(choice, type) and issubclass(choice, BrowserSession) for choice in choices)


def _resolved(annotation: str, function: Callable[..., Any]) -> Any:
    """Return what a string annotation stands for; one that is only imported for type checkers goes by its name."""
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return eval(annotation, scope)  # noqa: S307  (the function's own source, as typing.get_type_hints does)
    except Exception:  # noqa: BLE001  (an annotation may say anything)
        words = annotation.replace("|", " ").replace('"', " ").split()
        return BrowserSession if any(word.split(".")[-1] == "BrowserSession" for word in words) else None


def _by_keyword(name: str, parameter: inspect.Parameter, function: Callable[..., Any]) -> str:
    if parameter.kind not in {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}:
        raise ConfigurationError(f"{function.__qualname__}: the session is passed by keyword, which {name} is not")
    return name


class NameFrom:
    """Works out a fingerprint or agent_id from the arguments of one call.

    Raises:
        ConfigurationError: a template names what the function does not take; said when decorating.
    """

    def __init__(self, name: Name, function: Callable[..., Any], session: str | None) -> None:
        self._name = name
        self._function = function
        self._session = session
        if isinstance(name, str):
            self._check_template(name)

    def _check_template(self, template: str) -> None:
        try:
            fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
        except ValueError as error:
            raise ConfigurationError(f"template {template!r}: {error}") from None
        takes = self._signature.parameters
        for field in fields:
            first = field.replace("[", ".").split(".")[0]
            if first not in takes:
                raise ConfigurationError(
                    f"template {template!r}: {self._function.__qualname__} has no parameter {first!r}"
                )

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self._function)

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        """Return the name for this call."""
        name = self._name
        if name is None:
            return None
        if callable(name):
            return name(*args, **kwargs)
        if "{" not in name and "}" not in name:
            return name
        bound = self._signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        return name.format(**{key: value for key, value in bound.arguments.items() if key != self._session})
