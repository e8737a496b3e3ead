"""REST v1, below `/api/v1` on the portal's host: API keys, problem+json, `Idempotency-Key`, OpenAPI."""

from collections.abc import AsyncGenerator
from functools import cache
from typing import Any

from litestar import Litestar, Request, Response, Router, get
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Server

from app.brands import faces
from app.kernel.rest import Pending, begin
from app.kernel.slices import find_module, gather
from app.kernel.web import CURRENT, page, provide_tenant_scope, visit_of
from app.surfaces.assembly import routes_of, surface
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
PREFIX = "/api/v1"
DESCRIPTION = (
    "Authorization: Bearer with an API key of the brand whose host this is. Times are RFC 3339 in UTC, energy is in "
    "Wh, ids carry a prefix. Errors are problem+json (RFC 9457) with a stable code. Unsafe POSTs take Idempotency-Key."
)


async def tenant_scope(request: AnyRequest) -> AsyncGenerator[Scope, None]:
    """The transaction; a repeated POST is answered here, before its handler runs."""
    generator = provide_tenant_scope(request)
    scope = await anext(generator)
    try:
        visit_of(request).idempotency = await begin(request, scope)
        yield scope
    except BaseException as error:
        await generator.athrow(error)
        raise
    await anext(generator, None)


async def keep_first_answer(response: Response[Any]) -> Response[Any]:
    """Runs inside the handler's transaction: the answer is kept with what it reports, or neither is."""
    visit = CURRENT.get()
    pending: Pending | None = visit.idempotency
    if pending is not None:
        body = response.render(response.content, response.media_type or "application/json")
        await pending.store(response.status_code or 200, body.decode())
        visit.idempotency = None
    return response


@get("/openapi.json", opt={"public": True}, include_in_schema=False)
async def openapi_json(request: AnyRequest) -> dict[str, Any]:
    return request.app.state.schema


def schema() -> dict[str, Any]:
    """From an app that is never served: Litestar would serve documentation of its own beside ours, from a CDN."""
    config = OpenAPIConfig(
        title="Livery REST", version="1", description=DESCRIPTION, use_handler_docstrings=True,
        servers=[Server(url="/")], security=[{"apiKey": []}],
        components=Components(security_schemes={"apiKey": SecurityScheme(type="http", scheme="bearer")}),
    )  # fmt: skip
    twin = Litestar(
        [Router(PREFIX, route_handlers=_gathered())],
        openapi_config=config,
        dependencies={"tenant_scope": Provide(tenant_scope)},
    )
    return twin.openapi_schema.to_schema()


@get("/api/docs", opt={"public": True}, include_in_schema=False)
async def docs(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    visit, schema = visit_of(request), request.app.state.schema
    visit.brand = (await faces.get_face(tenant_scope)).brand
    return page(
        request, tenant_scope, "surfaces/api_docs.html", title="API", schema=schema, groups=_groups(schema),
        origin=visit.origin,
    )  # fmt: skip


def _groups(schema: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Operations by tag, in the order of their paths."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, item in sorted(schema["paths"].items()):
        for method, operation in item.items():
            if method in ("get", "post", "put", "patch", "delete"):
                tag = (operation.get("tags") or ["other"])[0]
                groups.setdefault(tag, []).append({"method": method.upper(), "path": path, **operation})
    return sorted(groups.items())


@cache
def build() -> Litestar:
    app = surface(
        "api", [docs, Router(PREFIX, route_handlers=[openapi_json, *_gathered()])],
        answers_on=("portal",), uses_keys=True, dependencies={"tenant_scope": Provide(tenant_scope)},
        after_request=keep_first_answer,
    )  # fmt: skip
    app.state["schema"] = schema()
    return app


def _gathered() -> list[Any]:
    return routes_of([*find_module("app.surfaces.events"), *gather("api")])
