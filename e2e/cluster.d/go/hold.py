#!/usr/bin/env python3
"""Makes the go.mod of one program that follows Kubernetes' versions.

The program's module starts from kubernetes/go.mod. Whatever `go get` would raise above Kubernetes' own pins is
excluded, until nothing moves: all modules then compile the same packages, and the Go build cache serves them all.
Needed only to move to new versions; the build uses the go.mod and go.sum files as they are committed.

    hold.py helm helm.sh/helm/v4/cmd/helm@v4.3.1
    hold.py csi-resizer github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer@v2.3.0
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BASE = HERE / "kubernetes"
ROUNDS = 12


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="directory beside this script")
    parser.add_argument("packages", nargs="+", metavar="PACKAGE@VERSION")
    parser.add_argument("--float", action="append", default=[], metavar="MODULE", help="let this one leave its pin")
    parser.add_argument("--exclude", action="append", default=[], metavar="MODULE@VERSION", help="from the start")
    parser.add_argument("--require", action="append", default=[], metavar="MODULE@VERSION", help="from the start")
    arguments = parser.parse_args()
    pinned = requirements(BASE)
    excluded = set(arguments.exclude)
    for turn in range(1, ROUNDS + 1):
        now = resolve(arguments, excluded)
        raised = [
            f"{path}@{now[path]}"
            for path, version in pinned.items()
            if path in now and now[path] != version and path not in arguments.float
        ]
        print(f"hold: round {turn}: {len(raised)} raised {' '.join(raised[:5])}", file=sys.stderr)
        if not raised:
            return 0
        excluded.update(raised)
    print(f"hold: after {ROUNDS} rounds versions still rise: --float or --exclude one of them", file=sys.stderr)
    return 1


def resolve(arguments, excluded):
    """Writes the module's go.mod anew, lets `go get` complete it, and returns what it requires then."""
    directory = HERE / arguments.module
    directory.mkdir(exist_ok=True)
    for name in ("go.mod", "go.sum"):
        shutil.copy(BASE / name, directory / name)
    edits = [f"-module=streamapp.test/cluster/{arguments.module}"]
    edits += [f"-exclude={item}" for item in sorted(excluded)]
    edits += [f"-require={item}" for item in arguments.require]
    subprocess.run(["go", "mod", "edit", *edits], cwd=directory, check=True)
    # A module with a main.go of its own needs libraries, the others name a program.
    tool = [] if (directory / "main.go").exists() else ["-tool"]
    got = subprocess.run(["go", "get", *tool, *arguments.packages], cwd=directory, capture_output=True, text=True)
    if got.returncode != 0:
        print(got.stderr[-1500:], file=sys.stderr)
    return requirements(directory)


def requirements(directory):
    out = subprocess.run(["go", "mod", "edit", "-json"], cwd=directory, check=True, capture_output=True, text=True)
    return {item["Path"]: item["Version"] for item in json.loads(out.stdout)["Require"]}


if __name__ == "__main__":
    sys.exit(main())
