"""A process that hosts the embedded servers, as `livery up` does, and toy children if asked: the tests kill it."""

import json
import os
import sys
import time
from pathlib import Path

from app.embedded import EmbeddedServers
from app.kernel.errors import LiveryError
from app.supervisor import Child, StopRequested, Supervisor, raise_on_stop_signals


def main(data_dir: str, *toys: str) -> int:
    raise_on_stop_signals()
    supervisor = Supervisor(lambda line: print(line, file=sys.stderr, flush=True))
    servers = EmbeddedServers(
        Path(data_dir), fsync=False, progress=lambda line: print(line, file=sys.stderr, flush=True)
    )
    try:
        servers.start()
        servers.announce(LIVERY_WEB_PORT="18123")
        for number, code in enumerate(toys):
            supervisor.start(Child(f"toy{number}", [sys.executable, "-c", code], os.environ))
        toy_pids = [child.process.pid for child in supervisor.children if child.process]
        print(json.dumps({"pids": [*servers.pids.values(), *toy_pids], "urls": servers.urls}), flush=True)
        while True:
            time.sleep(0.05)
            for name in servers.revive():
                print(f"revived {name}", flush=True)
    except LiveryError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 1
    except StopRequested:
        return 0
    finally:
        supervisor.stop()
        servers.stop()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
