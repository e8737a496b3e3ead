"""Putting a surface together: its routes, its templates, its guards, its way of saying no."""

from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import Any

import jinja2
from litestar import Litestar, Response, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from app.brands import faces
from app.identity.permissions import ADMIN_PERMISSIONS, PERMISSIONS
from app.kernel.rest import Replay
from app.kernel.slices import template_folders
from app.kernel.web import NavItem, provide_tenant_scope
from app.surfaces.errors import MethodsAsked, as_methods, as_page, as_problem, as_replay
from app.surfaces.guards import guard
from tenants.scope import Scope
from themes.render import environment

MAX_BODY_BYTES = 1_000_000
_KNOWN = frozenset(PERMISSIONS) | ADMIN_PERMISSIONS


@cache
def templates() -> jinja2.Environment:
    return environment(template_folders())


def routes_of(modules: Iterable[ModuleType]) -> list[Any]:
    return [route for module in modules for route in module.routes]


def nav_of(modules: Iterable[ModuleType]) -> list[NavItem]:
    return sorted(
        (item for module in modules for item in getattr(module, "nav", ())), key=lambda item: item.order
    )


def surface(
    name: str, routes: list[Any], *, nav: Iterable[NavItem] = (), nav_groups: tuple[tuple[int, str], ...] = (),
    answers_on: tuple[str, ...] = (), uses_keys: bool = False, dependencies: dict[str, Provide] | None = None,
    after_request: Any = None,
) -> Litestar:  # fmt: skip
    """Holds nothing of a deployment: a process builds each once, and several front doors may share it.
    `nav_groups`: what stands above the navigation's items from that order on, in rising order.
    `uses_keys`: API keys instead of cookies, problem+json instead of pages."""
    as_answer = as_problem if uses_keys else as_page
    app = Litestar(
        route_handlers=routes,
        guards=[guard],
        dependencies=dependencies or {"tenant_scope": Provide(provide_tenant_scope)},
        exception_handlers={Exception: as_answer, Replay: as_replay, MethodsAsked: as_methods},
        after_request=after_request,
        openapi_config=None,
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
        state=State({
            "templates": templates(), "nav": list(nav), "nav_groups": nav_groups,
            "answers_on": answers_on or (name,), "uses_keys": uses_keys,
        }),
    )  # fmt: skip
    undeclared = [
        f"{method} {route}" for method, route, handler in route_table(app) if not _is_declared(handler)
    ]
    if undeclared:
        raise RuntimeError(f"{name}: routes without a known permission: {', '.join(undeclared)}")
    return app


def route_table(app: Litestar) -> list[tuple[str, str, HTTPRouteHandler]]:
    """Every (method, path, handler) of a surface, as the isolation proof walks them."""
    found = []
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for method, (handler, _model) in route.route_handler_map.items():
                if method != "OPTIONS":
                    found.append((str(method), route.path_format, handler))
    return sorted(found, key=lambda row: (row[1], row[0]))


def _is_declared(handler: HTTPRouteHandler) -> bool:
    return bool(handler.opt.get("public")) or handler.opt.get("permission") in _KNOWN


@get("/brand/{file_name:str}", opt={"public": True})
async def brand_file(tenant_scope: Scope, file_name: str) -> Response[bytes]:
    """A brand's stylesheet, icons and pictures."""
    return _forever(*await faces.find_file(tenant_scope, file_name))


@get("/brand/{file_name:str}", opt={"public": True})
async def platform_file(file_name: str) -> Response[bytes]:
    """The same of the platform's own look."""
    return _forever(*await faces.find_file(None, file_name))


def _forever(content: bytes, media_type: str) -> Response[bytes]:
    """Named by its hash: it never changes."""
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(content, media_type=media_type, headers=headers)
