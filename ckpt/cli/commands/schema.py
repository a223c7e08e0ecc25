"""`ckpt schema`: the published shape of every JSON output."""

from __future__ import annotations

import json

import click

from ckpt.cli.command import Command
from ckpt.cli.context import Invocation, pass_invocation, usage
from ckpt.cli.output import dump_json


@click.command("schema", cls=Command, short_help="Print the JSON Schema of an output", examples="ckpt schema log")
@click.argument("name", required=False)
@pass_invocation
def command(invocation: Invocation, name: str | None) -> None:
    """Print the JSON Schema of the output NAME, or list the names.

    Fields are added, never renamed; readers ignore fields and values they do not know. A change that would
    break them raises the number in "schema".
    """
    from ckpt.cli.schemas import SCHEMAS

    out = invocation.out
    if name is None:
        if invocation.json:
            out.document("ckpt.schemas/1", {"items": sorted(SCHEMAS)})
        else:
            for each in sorted(SCHEMAS):
                out.print(each)
        return
    if name not in SCHEMAS:
        usage(f"there is no schema {name}", f"the schemas are {', '.join(sorted(SCHEMAS))}")
    schema = SCHEMAS[name]()
    for line in [dump_json(schema)] if invocation.json else json.dumps(schema, indent=2).split("\n"):
        out.print(line)
