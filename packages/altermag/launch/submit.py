"""Submit the flow of one monolayer to a cluster, or run it here.

    pip install 'altermag[flows]' jobflow-remote
    python launch/submit.py launch/ptbr3_vasp.toml                     # show the flow
    python launch/submit.py launch/ptbr3_vasp.toml --remote WORKER     # jobflow-remote
    python launch/submit.py launch/ptbr3_vasp.toml --local             # jobflow, in this folder
    python launch/submit.py launch/ptbr3_vasp.toml --set hubbard.Pt=2.0 --remote WORKER   # a scan of U

Pseudopotentials are pymatgen's: PMG_VASP_PSP_DIR in ~/.pmgrc.yaml.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from altermag import Monolayer, prototypes
from altermag.flows import StackingFlowMaker


def read_config(path: Path, changes: list[str]) -> dict[str, Any]:
    """Return the file's tables with the changes, key=value of [flow], dots for tables in it."""
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    for change in changes:
        key, _, value = change.partition("=")
        *tables, name = key.split(".")
        place = config["flow"]
        for table in tables:
            place = place.setdefault(table, {})
        place[name] = json.loads(value)
    return config


def monolayer(file: str, magmoms: dict[str, float] | None = None) -> Monolayer:
    """Return the monolayer of a file, or of one of `altermag.prototypes`."""
    if file.startswith("prototype:"):
        return getattr(prototypes, file.removeprefix("prototype:"))()
    return Monolayer.from_file(file, magmoms)


def main() -> None:
    """Read the options, make the flow, send it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--remote", metavar="WORKER")
    given = parser.parse_args()
    config = read_config(given.config, given.set)
    flow = StackingFlowMaker(**config["flow"]).make(monolayer(**config["monolayer"]))
    if given.local:
        from jobflow.managers.local import run_locally

        run_locally(flow, create_folders=True)
    elif given.remote:
        from jobflow_remote import submit_flow

        print(submit_flow(flow, worker=given.remote))
    else:
        for job in flow.jobs:
            print(job.name)


if __name__ == "__main__":
    main()
