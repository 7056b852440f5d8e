"""Replays golden files: `python -m tests.replay_golden FILE...`.

Each file holds recorded numbers of an original. Files of different systems may be mixed: a file's
system (`tests.golden_systems`) is recognised by its contents. Prints, for each file, the worst
deviation in its system's measure, where it is, and the limit. Exits 1 if any is above it, or a file
is of no system, or cannot be read.
"""

import json
import sys
from pathlib import Path

from tests.golden_systems import SYSTEMS, system_of


def report(path):
    """Replays a file; returns a line for people, and whether all is within the limit."""
    try:
        golden = json.loads(Path(path).read_text(encoding="utf-8"))
        name = system_of(golden)
        deviations = SYSTEMS[name].replay(golden)
    except Exception as error:  # whatever a damaged file leads to; the others are replayed
        return f"{path}: {type(error).__name__}: {error}", False
    limit = SYSTEMS[name].limit
    missing = [place for place, deviation in deviations.items() if "nothing replays" in place]
    replayed = {place: deviations[place] for place in deviations.keys() - set(missing)}
    if not replayed:
        return f"{path}: {name}, of which nothing is replayed", False
    place = max(replayed, key=replayed.get)
    counts = f"{len(replayed)} numbers, limit {limit:g}"
    line = f"{path}: {name} {replayed[place]:.3e} at {place} ({counts})"
    if missing:
        line += f"; NOT REPLAYED, and so failed: {', '.join(p.split(',')[0] for p in missing)}"
    return line, replayed[place] <= limit and not missing


def main(paths):
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    all_within = True
    for path in paths:
        line, is_within = report(path)
        print(line, flush=True)
        all_within &= is_within
    return 0 if all_within else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
