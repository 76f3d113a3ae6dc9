"""Templates and chat templates: what cannot stand around every prompt is refused before a row is read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
from inputs import Case, check_case

BOS = "<|endoftext|>"
CONTENT = "{{ messages[0].content }}"
REMEDY = "write the template's text out in the config, with {prompt} in it"
KNOWN = (
    "one of human-assistant, instruction-response, zephyr, chat (the model's own), or a text that holds {prompt} once"
)


def data_flags(folder, template, prompt="the river", response="stone", *more):
    """`data prompts` of one row."""
    (folder / "source").mkdir()
    pq.write_table(pa.table({"prompt": [prompt], "response": [response]}), folder / "source/train.parquet")
    paths = ["--source", "source", "--split", "train", "--output", "out.parquet", "--output-digest", "out.json"]
    limits = ["--max-prompt-tokens", "64", "--max-tokens", "96", "--max-new-tokens", "8", "--eos-on-cut", "false"]
    model = ["--fits", "model", "--templates", template, "--template", template, "--eos", BOS]
    return ["data", "prompts", *paths, *limits, *model, "--rows", "1", "--seed", "1", *more]


def chat(source, prompt="the river", adds_bos=False):
    """Prepares `data` with a chat template in the model's `chat_template.jinja`; None: there is none."""

    def prepare(folder):
        if source is not None:
            (folder / "model/chat_template.jinja").write_text(source)
        path = folder / "model/tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": BOS}))
        if adds_bos:
            path = folder / "model/tokenizer.json"
            sequence = [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
            special = {BOS: {"id": BOS, "ids": [0], "tokens": [BOS]}}
            process = {"type": "TemplateProcessing", "single": sequence, "pair": sequence, "special_tokens": special}
            path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": process}))
        return data_flags(folder, "chat", prompt)

    return prepare


def named(in_config, **sources):
    """Prepares `data` with several chat templates by name, in the tokenizer's config or in files."""

    def prepare(folder):
        if in_config:
            path = folder / "model/tokenizer_config.json"
            templates = [{"name": name, "template": source} for name, source in sources.items()]
            path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": templates}))
        else:
            (folder / "model/additional_chat_templates").mkdir()
            for name, source in sources.items():
                (folder / f"model/additional_chat_templates/{name}.jinja").write_text(source)
        return data_flags(folder, "chat")

    return prepare


def text(template):
    return lambda folder: data_flags(folder, template)


def refused(kind, source, difference, **more):
    message = f"model: template 'chat': expected a chat template {difference}; {REMEDY}"
    return Case(kind, source if callable(source) else chat(source, **more), message)


READ = "out.parquet: 1 rows of split train; passed over: none"
RENDERS = "that renders one turn of a user, found"

CASES = [
    refused("`chat` for a model without chat template", None, "of the model's tokenizer, found none"),
    refused(
        "named chat templates in the tokenizer's config, none of them `default`",
        named(True, tool_use=CONTENT, rag=CONTENT),
        "named default, found rag, tool_use",
    ),
    refused(
        "named chat templates in `additional_chat_templates/`, none of them `default`",
        named(False, rag=CONTENT),
        "named default, found rag",
    ),
    Case("named chat templates, `default` among them", named(True, default=CONTENT, rag="no prompt"), READ, code=0),
    refused(
        "a chat template that is no Jinja",
        "{% for message in messages %}" + CONTENT,
        f"{RENDERS} TemplateSyntaxError: Unexpected end of template. Jinja was looking for the following tags: 'endfor' "
        "or 'else'. The innermost block that needs to be closed is 'for'.",
    ),
    refused(
        "a chat template that wants a system message first",
        "{% if messages[0].role != 'system' %}{{ raise_exception('System message missing') }}{% endif %}" + CONTENT,
        f"{RENDERS} TemplateError: System message missing",
    ),
    refused(
        "a chat template that wants several turns",
        CONTENT + "{{ messages[1].content }}",
        f"{RENDERS} UndefinedError: list object has no element 1",
    ),
    refused(
        "a chat template with a function of another library",
        "{{ today() }}" + CONTENT,
        f"{RENDERS} UndefinedError: 'today' is undefined",
    ),
    refused(
        "a chat template that reaches into Python",
        "{{ messages.__class__.__mro__ }}" + CONTENT,
        f"{RENDERS} SecurityError: access to attribute '__class__' of 'list' object is unsafe.",
    ),
    refused(
        "a chat template that reads content in parts alone",
        "{% for part in messages[0].content %}{{ part['text'] }}{% endfor %}",
        "that holds the prompt once, found it 0 times",
    ),
    refused(
        "a chat template with today's date",
        "{{ strftime_now('%d %b %Y') }}" + CONTENT,
        "without the date, found strftime_now",
    ),
    refused("a chat template without the prompt", "Answer.", "that holds the prompt once, found it 0 times"),
    refused("a chat template with the prompt twice", CONTENT * 2, "that holds the prompt once, found it 2 times"),
    refused(
        "a chat template without BOS, for a tokenizer that puts BOS before a text",
        "Q: " + CONTENT,
        f"that begins with BOS, found {BOS}, which the tokenizer puts before a text, missing",
        adds_bos=True,
    ),
    refused(
        "a chat template with BOS twice",
        BOS + "{{ bos_token }}" + CONTENT,
        f"that begins with one BOS, found {BOS} twice",
    ),
    refused(
        "a chat template that begins in another way for some prompts",
        "{% if '?' in messages[0].content %}Q{% else %}S{% endif %}: " + CONTENT,
        "with the same text around every prompt, found other text around 'river?'",
        prompt="river?",
    ),
    Case(
        "a prompt that the chat template trims to nothing",
        chat("Q: {{ messages[0].content | trim }}", prompt=" \n"),
        "data: expected 1 rows that fit, found 0 of 1 (1 without a token for prompt or answer); choose other rows",
    ),
    Case("a template's name with a typing error", text("zephir"), f"template 'zephir': expected {KNOWN}"),
    Case("a template without a place for the prompt", text("Q: A:"), f"template 'Q: A:': expected {KNOWN}"),
    Case(
        "a template with two places for the prompt",
        text("{prompt} {prompt}"),
        f"template '{{prompt}} {{prompt}}': expected {KNOWN}",
    ),
    Case("special tokens in a prompt", chat(BOS + CONTENT, prompt=f"what is {BOS}?"), READ, code=0),
]

test_templates = check_case(CASES)
