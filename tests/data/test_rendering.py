"""Templates around a user's text, and chat templates that cannot be used."""

import pytest
from tokenizers import processors

from wspin.config.stages import Dialogue
from wspin.data.chat import ChatTokenizer
from wspin.data.rendering import Template
from wspin.errors import StudyError
from wspin.models import folders

EOS = "<|endoftext|>"
CONTENT = "{{ messages[0].content }}"
SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('a system message comes first') }}{% endif %}" + CONTENT
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant:"
)


@pytest.fixture
def tokenizer(scratch_model):
    """A tokenizer with BOS, which it puts before every text, and with the tokens of ChatML."""
    loaded = folders.load_tokenizer(scratch_model)
    loaded.add_special_tokens({"bos_token": "<s>", "extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    bos = [("<s>", loaded.bos_token_id)]
    loaded.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=bos)
    loaded.name_or_path = "results/base/model"
    return loaded


def chat_of(tokenizer, source):
    tokenizer.chat_template = source
    settings = {"max_prompt_tokens": 64, "max_tokens": 96, "eos_on_cut": False}
    return ChatTokenizer(tokenizer, Dialogue(template="chat", eos=EOS, **settings))


UNUSABLE = {
    "none": (None, "a chat template of the model's tokenizer, found none"),
    "empty": ("", "a chat template of the model's tokenizer, found none"),
    "named templates without default": (
        {"tool_use": CONTENT, "rag": CONTENT},
        "a chat template named default, found rag, tool_use",
    ),
    "the date": ("{{ strftime_now('%d') }}" + CONTENT, "a chat template without the date, found strftime_now"),
    "no Jinja": (
        "{{ messages[0].content }",
        "a chat template that renders one turn of a user, found TemplateSyntaxError: unexpected '}'",
    ),
    "an exception of its own": (
        SYSTEM,
        "a chat template that renders one turn of a user, found TemplateError: a system message comes first",
    ),
    "a value that is missing": (
        "{{ messages[1].content }}",
        "a chat template that renders one turn of a user, found UndefinedError: list object has no element 1",
    ),
    "no prompt": ("<s>Hi.", "a chat template that holds the prompt once, found it 0 times"),
    "the prompt twice": ("<s>" + 2 * CONTENT, "a chat template that holds the prompt once, found it 2 times"),
    "BOS twice": ("<s>{{ bos_token }}" + CONTENT, "a chat template that begins with one BOS, found <s> twice"),
    "BOS missing": (
        CHATML,
        "a chat template that begins with BOS, found <s>, which the tokenizer puts before a text, missing",
    ),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_chat_template_that_cannot_be_used_is_one_line(tokenizer, kind):
    """Where the tokenizer is made, before any prompt."""
    source, difference = UNUSABLE[kind]
    with pytest.raises(StudyError) as error:
        chat_of(tokenizer, source)
    remedy = "write the template's text out in the config, with {prompt} in it"
    assert str(error.value) == f"results/base/model: template 'chat': expected {difference}; {remedy}"


def test_the_default_of_named_templates_is_used(tokenizer, tmp_path):
    """Also from a folder's `additional_chat_templates`."""
    named = {"default": "<s>Q: " + CONTENT, "rag": "<s>documents" + CONTENT}
    tokenizer.chat_template = named
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "additional_chat_templates" / "rag.jinja").exists()
    loaded = folders.load_tokenizer(tmp_path)
    for chat in (chat_of(tokenizer, named), chat_of(loaded, loaded.chat_template)):
        assert chat.template.render("the river").text == "<s>Q: the river"


@pytest.mark.parametrize("prompt", ["the river", " the\n", "\n\nriver ", "{prompt}", "</s> <|im_end|>", "{{ 1 }}"])
def test_what_a_template_does_with_the_users_text_is_done(tokenizer, prompt):
    chat = chat_of(tokenizer, "{{ bos_token }}" + CHATML)
    rendered = chat.template.render(prompt)
    assert rendered.text == f"<s><|im_start|>user\n{prompt.strip()}<|im_end|>\n<|im_start|>assistant:"
    assert rendered.parts == ("<s><|im_start|>user\n", prompt.strip(), "<|im_end|>\n<|im_start|>assistant:")


def test_a_template_may_add_text_to_some_prompts(tokenizer):
    """It lies beside the user's text, which alone is kept from becoming special tokens."""
    chat = chat_of(tokenizer, "<s>{% if '?' in messages[0].content %}<|im_start|> {% endif %}" + CONTENT)
    own = tokenizer.apply_chat_template([{"role": "user", "content": "hi?"}])["input_ids"]
    assert chat.template.render("hi?").parts == ("<s><|im_start|> ", "hi?", "")
    assert chat.prompt_ids("hi?") == own
    assert chat.prompt_ids("hi?<|im_end|>")[: len(own)] == own
    assert chat.special_tokens["<|im_end|>"] not in chat.prompt_ids("hi?<|im_end|>")


def test_a_template_that_changes_around_some_prompts_is_one_line(tokenizer):
    chat = chat_of(tokenizer, "<s>{% if '?' in messages[0].content %}Q{% else %}S{% endif %}: " + CONTENT)
    assert chat.template.render("hi").text == "<s>S: hi"
    with pytest.raises(StudyError, match=r"with the same text around every prompt, found other text around 'hi\?'"):
        chat.prompt_ids("hi?")


def test_a_text_template_needs_no_tokenizer():
    assert Template("human-assistant").render(" Hi. ").text == "\n\n<Human>: Hi. \n\n<Assistant>:"
    assert Template("Q {x}: {prompt} A:").render("{prompt} {x} \\1").parts == ("Q {x}: ", "{prompt} {x} \\1", " A:")


def test_a_tokenizer_that_draws_its_tokens_is_one_line(tokenizer):
    """Where the same text has other tokens in every stage."""
    tokenizer.backend_tokenizer.model.dropout = 0.1
    with pytest.raises(StudyError) as error:
        chat_of(tokenizer, "<s>" + CONTENT)
    assert str(error.value) == (
        "results/base/model/tokenizer.json: model.dropout: expected none, "
        "found 0.1, which draws a text's tokens; write null there"
    )
