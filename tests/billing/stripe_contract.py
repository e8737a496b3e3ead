"""Stripe's wire as stripe-python itself defines it: requests and answers checked against schemas derived from the SDK.

The library is generated from Stripe's OpenAPI description: each service method has a path, its parameters are a
TypedDict, its answer a class with annotations. From these come JSON Schemas without unknown fields, with closed enums.
"""

import ast
import builtins
import functools
import importlib
import inspect
import json
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import stripe
import typing_extensions
from stripe._request_options import RequestOptions

from app.billing import sandbox
from tenants.database import Database

PACKAGE = Path(stripe.__file__).parent
OPTIONS = frozenset(RequestOptions.__annotations__)


class ContractViolation(AssertionError):
    pass


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    path: str
    module: str
    params: str | None
    answer: str | None


@functools.cache
def endpoints() -> dict[tuple[str, str], Endpoint]:
    """(method, path) -> where its parameters and its answer are declared."""
    found = {}
    for file in PACKAGE.rglob("_*_service.py"):
        module = "stripe." + ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            for call in ast.walk(node):
                if (
                    isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Attribute)
                    and call.func.attr == "_request"
                ):
                    method, path = (_literal(argument) for argument in call.args[:2])
                    declared = next(
                        (ast.unparse(a.annotation) for a in node.args.args if a.arg == "params"), ""
                    )  # type: ignore[arg-type]
                    params = re.search(r"\w+Params", declared)
                    found[method.upper(), path] = Endpoint(
                        method.upper(), path, module, params.group() if params else None,
                        ast.unparse(node.returns) if node.returns else None,
                    )  # fmt: skip
    return found


def _literal(node: ast.expr) -> str:
    """`"/v1/x"` or `"/v1/x/{id}".format(...)`."""
    inner = node.func.value if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else node
    return str(inner.value) if isinstance(inner, ast.Constant) else ""


def find_endpoint(method: str, path: str) -> Endpoint:
    for (known, pattern), endpoint in sorted(endpoints().items(), key=lambda one: "{" in one[0][1]):
        if known == method and re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", pattern), path):
            return endpoint
    raise ContractViolation(f"there is no {method} {path}")


# -- annotations to schemas ---------------------------------------------------------------------------------------


class _Names(dict[str, Any]):
    """What only a type checker imports is anything at all."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return Any


def _resolved(annotation: Any, module: str, owner: Any = None) -> Any:
    while isinstance(annotation, str | typing.ForwardRef):
        text = annotation.__forward_arg__ if isinstance(annotation, typing.ForwardRef) else annotation
        names = _Names(_names(module))
        if owner is not None:
            names |= {name: value for name, value in vars(owner).items() if inspect.isclass(value)}
        annotation = eval(text, {"__builtins__": builtins}, names)  # noqa: S307 (an installed package's annotations)
    return annotation


@functools.cache
def _names(module: str) -> dict[str, Any]:
    """What the module knows, and what it imports for its type checker only."""
    found = dict(vars(importlib.import_module(module)))
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stripe"):
            for alias in node.names:
                known = getattr(importlib.import_module(node.module or ""), alias.name, Any)
                found.setdefault(alias.asname or alias.name, known)
    return found


class _Schemas:
    def __init__(self) -> None:
        self.defs: dict[str, Any] = {}

    def of(self, hint: Any, module: str, owner: Any = None, *, is_answer: bool = False) -> dict[str, Any]:
        hint = _resolved(hint, module, owner)
        origin, inner = typing_extensions.get_origin(hint), typing_extensions.get_args(hint)

        def of(one: Any) -> dict[str, Any]:
            return self.of(one, module, owner, is_answer=is_answer)

        if origin in (typing_extensions.NotRequired, typing_extensions.Required):
            return of(inner[0])
        if origin in (typing.Literal, typing_extensions.Literal):
            return {"enum": list(inner)}
        if origin is typing.Union or type(hint).__name__ == "UnionType":
            return {"anyOf": [of(one) for one in self._closed(inner, module, owner)]}
        if origin is list or hint is list:
            return {"type": "array", **({"items": of(inner[0])} if inner else {})}
        if origin is dict or hint is dict:
            return {
                "type": "object",
                **({"additionalProperties": of(inner[1])} if inner and not is_answer else {}),
            }
        plain = {int: "integer", bool: "boolean", str: "string", float: "number", type(None): "null"}
        if hint in plain:
            return {"type": plain[hint]}
        if typing_extensions.is_typeddict(hint):
            return self._params(hint)
        if inspect.isclass(origin or hint) and issubclass(origin or hint, stripe.StripeObject):
            return self._answer(origin or hint)
        return {}

    def _closed(self, members: tuple[Any, ...], module: str, owner: Any) -> list[Any]:
        """The SDK types enums as open (`Literal[…] | str`): a test closes them, but for `Literal[''] | str`."""
        known = [_resolved(one, module, owner) for one in members]
        enums = [
            typing_extensions.get_args(one)
            for one in known
            if typing_extensions.get_origin(one) is typing.Literal
        ]
        return [one for one in known if one is not str] if any(enum != ("",) for enum in enums) else known

    def _params(self, hint: Any) -> dict[str, Any]:
        name = f"{hint.__module__}.{hint.__name__}"
        if name not in self.defs:
            self.defs[name] = {}
            properties, required = {}, []
            for key, annotation in hint.__annotations__.items():
                if key in OPTIONS:
                    continue
                resolved = _resolved(annotation, hint.__module__)
                if typing_extensions.get_origin(resolved) is not typing_extensions.NotRequired:
                    required.append(key)
                properties[key] = self.of(resolved, hint.__module__)
            self.defs[name] = {
                "type": "object", "properties": properties, "required": required, "additionalProperties": False,
            }  # fmt: skip
        return {"$ref": f"#/$defs/{name}"}

    def _answer(self, resource: Any) -> dict[str, Any]:
        name = f"{resource.__module__}.{resource.__qualname__}"
        if name not in self.defs:
            self.defs[name] = {}
            properties, required = {}, []
            for base in reversed(resource.__mro__):
                if not base.__module__.startswith("stripe") or base is stripe.StripeObject:
                    continue
                for key, annotation in vars(base).get("__annotations__", {}).items():
                    if key.startswith("_") or key == "OBJECT_NAME" or "ClassVar" in str(annotation):
                        continue
                    if "Optional" not in str(annotation) and "None" not in str(annotation):
                        required.append(key)
                    properties[key] = self.of(annotation, base.__module__, base, is_answer=True)
            self.defs[name] = {"type": "object", "properties": properties, "required": required}
        return {"$ref": f"#/$defs/{name}"}


@functools.cache
def _request(endpoint: Endpoint) -> tuple[dict[str, Any], Any]:
    schemas = _Schemas()
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False}
    if endpoint.params:
        schema = schemas.of(endpoint.params, endpoint.module)
    whole = {**schema, "$defs": schemas.defs}
    return whole, jsonschema_rs.validator_for(whole)


@functools.cache
def _answer(endpoint: Endpoint) -> Any:
    schemas = _Schemas()
    schema = schemas.of(endpoint.answer or "object", endpoint.module, is_answer=True)
    return jsonschema_rs.validator_for({**schema, "$defs": schemas.defs})


def _typed(value: Any, schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Any:
    """Form fields are texts: `5` is a number where the schema wants one."""
    if "$ref" in schema:
        return _typed(value, defs[schema["$ref"].removeprefix("#/$defs/")], defs)
    for option in schema.get("anyOf", ()):
        typed = _typed(value, option, defs)
        if jsonschema_rs.is_valid({**option, "$defs": defs}, typed):
            return typed
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return {name: _typed(one, known.get(name, {}), defs) for name, one in value.items()}
    if isinstance(value, list):
        return [_typed(one, schema.get("items", {}), defs) for one in value]
    if schema.get("type") == "integer" and re.fullmatch(r"-?\d+", str(value)):
        return int(value)
    if schema.get("type") == "boolean" and value in ("true", "false"):
        return value == "true"
    return value


def check_request(method: str, url: str, headers: Mapping[str, str], body: Any) -> Endpoint:
    parts = urlsplit(url)
    endpoint = find_endpoint(method.upper(), parts.path)
    raw = body.encode() if isinstance(body, str) else body or b""
    params = sandbox.decode(method.upper(), parts.query, headers.get("Content-Type", ""), raw)
    schema, validator = _request(endpoint)
    typed = _typed(params, {k: v for k, v in schema.items() if k != "$defs"}, schema["$defs"])
    faults = [
        f"{'/'.join(map(str, e.instance_path))}: {e.message[:160]}" for e in validator.iter_errors(typed)
    ]
    if faults:
        raise ContractViolation(f"{endpoint.method} {endpoint.path}: {'; '.join(faults[:3])}")
    return endpoint


def check_answer(endpoint: Endpoint, body: Any) -> None:
    faults = [
        f"{'/'.join(map(str, e.instance_path))}: {e.message[:160]}"
        for e in _answer(endpoint).iter_errors(body)
    ]
    if faults:
        raise ContractViolation(f"answer to {endpoint.method} {endpoint.path}: {'; '.join(faults[:5])}")


@dataclass
class ContractWire:
    """The sandbox without a socket: every request and every answer is held against the SDK's own definitions."""

    database: Database
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    name: str = "contract"

    async def request_with_retries_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None, *_: Any, **__: Any
    ) -> tuple[str, int, Mapping[str, str]]:
        endpoint = check_request(method, url, headers, post_data)
        parts = urlsplit(url)
        raw = post_data.encode() if isinstance(post_data, str) else post_data or b""
        wire = sandbox.Wire(
            method=method.upper(), path=parts.path, key=headers["Authorization"].removeprefix("Bearer "),
            params=sandbox.decode(method.upper(), parts.query, headers.get("Content-Type", ""), raw),
            account=headers.get("Stripe-Account", ""), idempotency_key=headers.get("Idempotency-Key", ""),
        )  # fmt: skip
        self.calls.append((endpoint.method, endpoint.path, wire.account))
        try:
            answer = await sandbox.handle(self.database, wire)
        except sandbox.LostAnswer as error:
            raise stripe.APIConnectionError("the answer was lost") from error
        answer = sandbox.with_urls(answer, self.database.settings)
        if answer.status == 200:
            check_answer(endpoint, answer.body)
        return json.dumps(answer.body), answer.status, {}
