"""The generated files of `config/`, from the typed definition: `schema.json` for editors, `README.md` for readers.

Both are rewritten by `python tests/update.py`; a test fails while they differ from the definition.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic.json_schema import models_json_schema

from .base import LARGEST
from .explain import Node, entry_schema, resolve
from .stages import Train
from .study import Study
from .weigh import Weigh

INTRODUCTION = """\
# Configuration

<!-- Generated from workflow/scripts/wspin/config/ by `python tests/update.py`; edit it there. -->

| file | what it is |
| --- | --- |
| `config.yaml` | the study of the paper; always read first, and it gives every required key |
| `overlays/` | studies that change the one above: for a CPU (`demo.yaml` ...), the papers' settings and tables |
| `published/` | published numbers and settings, cited and never ours (`published/README.md`) |
| `tasks/` | lm-eval's task files: the demo's, on held-out rows, and those of `smollm2.yaml` |
| `architectures/` | shapes of the study's models, which `preflight` reads until they are fetched |
| `preregistration.yaml` | the family of tests of a study with seeds, named by `report.preregistration` |
| `preregistration_controls.yaml` | the same of `overlays/controls.yaml`: one seed, tests over documents |
| `schema.json` | JSON Schema of a configuration file, for completion and checks in an editor; generated |
| `README.md` | this page; generated |

An editor with a YAML language server uses the schema if the first line of a file is
`# yaml-language-server: $schema=schema.json`.

## Changing the study

Put what differs into an overlay, a file of its own, or on the command line:

```bash
snakemake --profile local results/demo/spin/ite0 --configfile config/overlays/demo.yaml
snakemake --profile local all --configfile config/overlays/demo.yaml --config 'train={"beta": 0.3}'
```

* **Targets come first.** `--configfile` and `--config` swallow the words that follow them.
* **Merging.** `config.yaml`, then each file of `--configfile` in order, then `--config`: a later value replaces an
  earlier one, key by key, at every depth. `--config` takes single values (`iterations=2`) and sections as JSON.
* **`null` deletes** an inherited key: `models: {teacher: null}` takes the teacher out of the registry. A null that has
  nothing to delete is refused; an arm that changes nothing is `mine: {}`.
* **Lists are replaced whole**, never joined.
* **Per-iteration values** (marked below) are one value, or a list with exactly one value per iteration. Models outside
  the arms have no iterations: they take one value, from `train.sft` or `train.dpo`.
* **Replicates.** An arm or trained model with `seeds: [42, 43, 44]` stands for one of each seed; `spin` keeps its name
  for the study's seed, the others are `spin.s43` and `spin.s44`, arms like any other. Arms are compared at equal seed.
  What a replicate refers to (the model it starts from, a scorer) is the replicate of its own seed where there is one.
* **Mistakes are reported at once**: unknown, duplicate and missing keys, wrong values and contradictions between
  sections stop the run before the first job, with file, line and key (docs/robustness.md has a hundred of them).
* **What re-runs** is what depends on the changed keys, and nothing else: `snakemake --profile local all -n` lists it.

An arm overrides settings of `train` and `weigh`, and the keys in the table of `arms`. All other settings are the
study's: a study with other data or another evaluation needs its own `results` folder.

## Keys

Defaults are those of `config.yaml`; a key without one is required wherever its group is used, unless its type says
optional. `<name>` stands for a name you choose, `<stage>` for each stage.
"""

WORDS = {"string": "text", "boolean": "true or false", "object": "mapping"}  # the other types keep their names
WIDEST_DEFAULT = 60  # characters; for longer ones the page refers to the file


class Key(NamedTuple):
    """A line of the option table: a key that holds a value, below the section it is in."""

    path: tuple[str, ...]
    node: Node
    required: bool


def render_for(folder: Path) -> dict[str, str]:
    """Name and text of each generated file of a configuration folder."""
    defaults = yaml.safe_load((folder / "config.yaml").read_text())
    return {"schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", "README.md": readme(defaults)}


# The schema


def schema() -> Node:
    """JSON Schema of a configuration file: every key may be left out, for overlays, and `null` deletes it."""
    roots, document = models_json_schema([(Study, "validation"), (Train, "validation"), (Weigh, "validation")])
    partial = {name: _partial(node) for name, node in document["$defs"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the SPIN-versus-WSPIN study",
        "$ref": roots[Study, "validation"]["$ref"],
        "$defs": dict(sorted(partial.items())),
    }


def _partial(node: Any) -> Any:
    """A schema node without required keys, with `null` allowed for every key, and without pydantic's titles."""
    if isinstance(node, list):
        return [_partial(part) for part in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if key not in ("required", "title", "default", "minProperties")}
    for key, value in kept.items():
        if key in ("properties", "patternProperties"):
            kept[key] = {name: _or_null(below, name) for name, below in value.items()}
        elif key == "additionalProperties":
            kept[key] = _or_null(value, key) if isinstance(value, dict) else value
        else:
            kept[key] = _partial(value)
    return kept


def _or_null(node: Node, name: str) -> Node:
    if node.get("additionalProperties") is True:  # overrides of `train` and `weigh`, wherever they stand
        section = "Weigh" if name == "weigh" else "Train"
        return {"description": node["description"], "anyOf": [{"$ref": f"#/$defs/{section}"}, {"type": "null"}]}
    partial, null = _partial(node), {"type": "null"}
    about = {"description": partial.pop("description")} if "description" in partial else {}
    alternatives = partial.get("anyOf", [partial])
    return {**about, "anyOf": [*(option for option in alternatives if option != null), null]}


# The option table


def readme(defaults: Node) -> str:
    """The page: introduction, then a table for each section in the order of the definition."""
    root = Study.model_json_schema()
    single, sections = [], []
    for name, node in root["properties"].items():
        keys = list(_leaves(root, node, (name,), name in root["required"]))
        if keys[0].path == (name,):
            single += keys
        else:
            sections.append("\n".join([f"### `{name}`", "", *_about(root, node), _table(keys, defaults, 1)]))
    whole = f"### The study as a whole\n\n{_table(single, defaults, 0)}"
    return "\n\n".join([INTRODUCTION.strip(), whole, *sections]) + "\n"


def _about(root: Node, node: Node) -> list[str]:
    """The description of a section, or of its entries if their names are the user's."""
    section = resolve(root, node)
    entry = resolve(root, entry_schema(section) or {})
    description = entry.get("description") or section.get("description")
    if not description:
        return []
    text = " ".join(description.split("\n\n")[0].split())  # the first paragraph, as a sentence
    return [text[0].upper() + text[1:].removesuffix(".") + ".", ""]


def leaves() -> list[Key]:
    """Every key of the configuration that holds a value."""
    root = Study.model_json_schema()
    return list(_leaves(root, root, (), required=True))


def _leaves(root: Node, node: Node, path: tuple[str, ...], required: bool) -> Iterator[Key]:
    section = resolve(root, node)
    below = section.get("properties", {})
    entry, name = entry_schema(section), "<name>"
    if len(below) > 1 and len({part.get("$ref", key) for key, part in below.items()}) == 1:  # all with the same keys
        entry, name, below = next(iter(below.values())), "<stage>", {}
    if below:
        for key, part in below.items():
            yield from _leaves(root, part, (*path, key), key in section.get("required", ()))
    elif entry and "$ref" in entry:
        yield from _leaves(root, entry, (*path, name), required)
    else:
        yield Key(path, node, required)


def _table(keys: list[Key], defaults: Node, drop: int) -> str:
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key in keys:
        cells = (f"`{'.'.join(key.path[drop:])}`", _type(key), _default(key, defaults), key.node.get("description", ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _type(key: Key) -> str:
    options = [option for option in key.node.get("anyOf", [key.node]) if option.get("type") != "null"]
    per_iteration = len(options) == 2 and options[1].get("items") == options[0]
    text = " or ".join(_word(option) for option in (options[:1] if per_iteration else options))
    return text + (", **per iteration**" if per_iteration else "") + ("" if key.required else ", optional")


def _word(node: Node) -> str:
    """The type of a schema node in words."""
    if "const" in node or "enum" in node:
        return " or ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if node.get("type") == "array":
        item = _word(node["items"])
        return f"list of {node['minItems']} {item}s" if "maxItems" in node else f"list of {item}"
    if node.get("pattern", "").endswith("{40}$"):
        return "40 hex digits"
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {node[name]:.10g}" for name, sign in bounds.items() if node.get(name, LARGEST) != LARGEST]
    return WORDS.get(node["type"], node["type"]) + (" " + ", ".join(limits) if limits else "")


def _default(key: Key, defaults: Node) -> str:
    value: Any = defaults
    for name in key.path:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        value = key.node.get("default")
    if value is None or value == {}:
        return ""
    text = flow_text(value)
    return f"`{text}`" if len(text) <= WIDEST_DEFAULT else "see the file"


def flow_text(value: Any) -> str:
    """A value of the configuration as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()
