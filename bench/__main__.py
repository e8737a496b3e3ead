"""`make bench`: ratios against named baselines, measured in one interleaved run. Absolute ones are this machine's."""

import json
import sys
from pathlib import Path

from bench import gateway, pricing

OUT = Path(__file__).parent / "out"
BENCHES = {"pricing": pricing.run, "gateway": gateway.run}


def main(names: list[str]) -> int:
    OUT.mkdir(exist_ok=True)
    for name in names or list(BENCHES):
        if name not in BENCHES:
            print(f"there is no bench {name}; there are {', '.join(BENCHES)}", file=sys.stderr)
            return 2
        figures = BENCHES[name]()
        (OUT / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
        print(f"{name}: {json.dumps(figures, indent=1)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
