"""The names of `persist_session`, computed from a call, and the parameter for the session."""

from __future__ import annotations

import functools
import inspect
import string
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from session_reuse._browser_session import BrowserSession
from session_reuse.errors import ConfigurationError, InvalidFingerprintError, LifecycleError

Name = str | Callable[..., str] | None
"""A template over a function's arguments, a function of the same arguments, or None."""


class _Injected:
    """Stands for the session in a signature. Its use raises an error, because no session was passed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "injected()"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # pickle, copy and inspect try special names, and expect this error
            raise AttributeError(name)
        raise LifecycleError(f"no session was passed (.{name}): put @persist_session(...) over the function")


_INJECTED = _Injected()


def injected() -> Any:
    """Return a default for the parameter in which `persist_session` passes the session.

    With it, type checkers accept calls without a session, and the function's body needs no check for None::

        @persist_session("shop.example/{account}")
        async def checkout(account: str, *, session: BrowserSession = injected()) -> None: ...
    """
    return _INJECTED


def described(function: Callable[..., object]) -> str:
    """Return the name of a function for messages, also of partials and callable objects."""
    return getattr(_core(function), "__qualname__", None) or type(function).__qualname__


def is_coroutine_function(function: Callable[..., object]) -> bool:
    """Return whether calls return coroutines, also for partials and for objects with an `async def __call__`."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_core(function))


def is_generator_function(function: Callable[..., object]) -> bool:
    """Return whether calls return generators, whose bodies run after the call."""
    core = _core(function)
    return inspect.isgeneratorfunction(core) or inspect.isasyncgenfunction(core)


def _core(function: Callable[..., object]) -> Callable[..., object]:
    """Return the function that runs: without partials, or the `__call__` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return getattr(function, "__call__", function)  # noqa: B004  (the method itself is wanted)


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature, with string annotations evaluated if that is possible already."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # noqa: BLE001  (an annotation may be any expression, and may name what is defined later)
        return inspect.signature(function)


class SessionParameter:
    """The parameter of a function that takes the session, if there is one.

    The parameter annotated `BrowserSession` wins over the one named `session`.

    Attributes:
        name: of the parameter. None without one.
        outside: the signature that callers see: without the session.

    Raises:
        ConfigurationError: the function cannot run inside a session, or takes it by position only.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        if isinstance(function, staticmethod | classmethod):
            raise ConfigurationError("persist_session goes below @staticmethod or @classmethod, next to the function")
        if is_generator_function(function):
            raise ConfigurationError(f"{described(function)} is a generator: use reusable_session inside of it")
        self._function = function
        signature = signature_of(function)
        parameters = list(signature.parameters.values())
        found = self._find(parameters)
        self.name = found.name if found is not None else None
        self.outside = signature.replace(parameters=[each for each in parameters if each is not found])
        self._index: int | None = None
        if found is not None and found.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            self._index = parameters.index(found)

    def _find(self, parameters: list[inspect.Parameter]) -> inspect.Parameter | None:
        found = [each for each in parameters if is_session(each.annotation, self._function)]
        # A parameter `session` with another type belongs to the function, such as one of a database.
        found += [each for each in parameters if each.name == "session" and each.annotation is each.empty]
        if not found:
            return None
        if found[0].kind not in {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}:
            what = f"{described(self._function)}: the session is passed by keyword, which {found[0].name} is not"
            raise ConfigurationError(what)
        return found[0]

    def call(self, args: Sequence[object], kwargs: Mapping[str, object], session: BrowserSession) -> Any:
        """Call the function with the session in its place."""
        if self.name is None:
            return self._function(*args, **kwargs)
        given = kwargs.get(self.name)
        if given is not None and given is not _INJECTED:
            raise ConfigurationError(
                f"{described(self._function)}: persist_session passes {self.name}."
                " To pass your own session, call the function's __wrapped__"
            )
        at = self._index
        if at is not None and at < len(args):  # what follows the session was passed by position
            return self._function(*args[:at], session, *args[at:], **kwargs)
        return self._function(*args, **{**kwargs, self.name: session})

    def show_on(self, wrapper: Callable[..., object]) -> None:
        """Set the outer signature of a wrapper. Web frameworks and command lines derive their parameters from it."""
        if self.name is None:
            return
        kinds = {name: each.annotation for name, each in self.outside.parameters.items()}
        kinds["return"] = self.outside.return_annotation
        # FastAPI, Typer and pydantic read the signature, older tools the annotations.
        wrapper.__signature__ = self.outside  # type: ignore[attr-defined]
        wrapper.__annotations__ = {name: kind for name, kind in kinds.items() if kind is not inspect.Signature.empty}


def is_session(annotation: object, function: Callable[..., object]) -> bool:
    """Return whether an annotation of a function stands for a session."""
    if isinstance(annotation, str):  # `from __future__ import annotations`, or a name that is defined later
        annotation = _evaluated(annotation, function)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated or origin is typing.Union or origin is types.UnionType:
        return any(is_session(choice, function) for choice in typing.get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, BrowserSession)


def _evaluated(annotation: str, function: Callable[..., object]) -> Any:
    """Return the type of a string annotation, by its name alone if it is imported for type checkers only."""
    scope = getattr(inspect.unwrap(_core(function)), "__globals__", {})
    try:
        return eval(annotation, scope)  # noqa: S307  (the function's own source, as typing.get_type_hints does)
    except Exception:  # noqa: BLE001  (an annotation may be any expression)
        words = annotation.replace("Optional[", " ").translate(str.maketrans("|]\"'", "    ")).split()
        return BrowserSession if any(word.split(".")[-1] == "BrowserSession" for word in words) else None


class NameFrom:
    """Computes a fingerprint or agent_id from the arguments of one call.

    Raises:
        ConfigurationError: a template names what the function does not take, or two calls with different arguments
            could get one name.
    """

    def __init__(self, name: Name, function: Callable[..., object], parameter: SessionParameter) -> None:
        self._name = name
        self._parameter = parameter
        self._template: _Template | None = None
        if callable(name) and (is_coroutine_function(name) or is_generator_function(name)):
            raise ConfigurationError(
                f"{described(name)} gives names, so it must be a plain function that returns a str"
            )
        if isinstance(name, str) and ("{" in name or "}" in name):
            self._template = _Template(name)
            for field in self._template.fields:
                first = field.replace("[", ".").split(".")[0]
                if first not in parameter.outside.parameters:
                    raise ConfigurationError(f"template {name!r}: {described(function)} has no parameter {first!r}")

    def __call__(self, args: Sequence[object], kwargs: Mapping[str, object]) -> str | None:
        """Return the name for this call.

        Raises:
            InvalidFingerprintError: an argument is None or empty, or the function returned no string.
        """
        if self._parameter.name in kwargs:
            kwargs = {key: value for key, value in kwargs.items() if key != self._parameter.name}
        if self._template is not None:
            call = self._parameter.outside.bind(*args, **kwargs)
            call.apply_defaults()
            return self._template.fill(call.arguments)
        if not callable(self._name):
            return self._name
        name: object = self._name(*args, **kwargs)
        if not isinstance(name, str):
            what = f"{described(self._name)} must return a str that names the session, not {type(name).__name__}"
            raise InvalidFingerprintError(what)
        return name


def _percent_encoded(character: str) -> str:
    """Return a character as `%2D`. `urllib.parse.quote` leaves `- . _ ~` as they are, and those separate fields too."""
    return "".join(f"%{byte:02X}" for byte in character.encode())


class _Template(string.Formatter):
    """A name with fields. Different values always lead to different names."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            parts = list(self.parse(text))
        except ValueError as error:
            raise ConfigurationError(f"template {text!r}: {error}") from None
        self.fields = [field for _, field, _, _ in parts if field is not None]
        between = [literal for literal, field, _, _ in parts[1:] if field is not None]
        self._is_one_field = len(parts) == 1 and not parts[0][0]
        self._reserved = {"/", "%", *(self._separator(literal) for literal in between)}

    def _separator(self, literal: str) -> str:
        """Return the character that ends a value. It is percent-encoded in values."""
        for character in literal:
            if not character.isalnum() and character != "%":
                return character
        raise ConfigurationError(f"template {self.text!r}: put a / between two fields, else their values run together")

    def fill(self, arguments: Mapping[str, object]) -> str:
        """Return the name for these arguments."""
        try:
            return self.vformat(self.text, (), arguments)
        except InvalidFingerprintError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # such as `{user.name}` of a dict
            raise InvalidFingerprintError(f"template {self.text!r} does not fit the arguments: {error!r}") from None

    def get_field(self, field_name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> Any:
        found = super().get_field(field_name, args, kwargs)
        if found[0] is None:
            raise InvalidFingerprintError(self._unfit(field_name, "None"))
        return found

    def format_field(self, value: object, format_spec: str) -> str:
        text: str = super().format_field(value, format_spec)
        if not text:
            raise InvalidFingerprintError(self._unfit("a value", "empty"))
        if hex(id(value)) in text:
            raise InvalidFingerprintError(
                f"template {self.text!r}: a value has no name but its address in memory: {text}"
            )
        if self._is_one_field:  # the value is the whole name, such as "shop.example/alice"
            return text
        return "".join(_percent_encoded(each) if each in self._reserved else each for each in text)

    def _unfit(self, field: str, what: str) -> str:
        return f"template {self.text!r}: {field} is {what}, and a session of that name would be shared by strangers"
