"""``clinalign doctor``: what is installed, what device, what is missing."""

from __future__ import annotations

import sys

import typer

from clinalign.cli.output import AsJson, print_json


def doctor_command(as_json: AsJson = False) -> None:
    """Say what is installed, what devices there are, and what is missing; status 2 where something needed is."""
    from clinalign.workflows.doctor import doctor

    found = doctor()
    if as_json:
        print_json(found)
    else:
        print(f"clinalign {found['clinalign']}, Python {found['python']}, {found['platform']}")
        for name, version in found["versions"].items():
            print(f"  {name:14} {version or 'missing'}")
        for name, device in found["devices"].items():
            memory = f", {device['memory_gib']} GiB" if device["memory_gib"] else ""
            speed = "fast" if device["bf16_is_fast"] else "not faster than float32"
            print(f"device {name}: {device['name']}{memory}, bfloat16 is {speed}")
        if not any(name.startswith("cuda") for name in found["devices"]):
            print(f"no CUDA device; torch uses {found['cpu_threads']} CPU threads")
        for name, extra in found["extras"].items():
            state = "installed" if extra["installed"] else f"not installed: {extra['install']}"
            print(f"extra {name} ({extra['use']}): {state}")
        cache = found["cache"]
        state = ", downloads are off" if cache["offline"] else ""
        print(f"models from the hub: {cache['path']}, {cache['free_gib']} GiB free{state}")
        for text in found["problems"]:
            print(f"clinalign: error: {text}", file=sys.stderr)
    if not found["ok"]:
        raise typer.Exit(2)
