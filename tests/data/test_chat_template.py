"""A template of the study as a chat template: in other programs a prompt has the ids that it has in the study."""

import pytest
from jinja2 import TemplateError
from tokenizer_kinds import TOKENIZERS
from transformers import PreTrainedTokenizerFast

from wspin.config.stages import Dialogue
from wspin.data.chat import ChatTokenizer
from wspin.models import folders
from wspin.templates import TEMPLATES

WRITTEN_OUT = {
    "jinja": "{{ bos }}{% raw %}{# {prompt} #}{% endraw %}{{",
    "quotes": "\"'\\n\\ {prompt} \\\"'",
    "blanks": "  \n\t {prompt}\n\n ",
    "letters": "é\u2028日本語 👩\u200d👩\u200d👧 {prompt} \x07\x85",
    "nothing": "{prompt}",
    "eos": "</s> a {prompt}</s> b",
}
PROMPTS = [
    "the river",
    "  leading blanks, and at the end \n",
    "\n\nthe first\nand the second\r\n\tline\n",
    "{{ messages[0].content }} {% for m in messages %} {# not a comment #} {prompt} {% raw %}",
    "quotes \" ' and \\ back\\slashes \\n",
    "naïve café 日本語 👩\u200d👩\u200d👧 \u2028 \x85",
    "x",
]


def tokenizer_of(kind):
    return PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS[kind](), eos_token="</s>", unk_token="<unk>")


def chat_of(tokenizer, template):
    settings = Dialogue(template=template, eos="</s>", max_prompt_tokens=64, max_tokens=96, eos_on_cut=False)
    chat = ChatTokenizer(tokenizer, settings)
    tokenizer.chat_template = chat.chat_template
    return chat


def turns(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.mark.parametrize("template", [*TEMPLATES, *WRITTEN_OUT.values()], ids=[*TEMPLATES, *WRITTEN_OUT])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_prompts_have_the_ids_of_the_study(kind, template, tmp_path):
    """After `save_pretrained` and back, as the programs of others read them."""
    chat = chat_of(tokenizer_of(kind), template)
    chat.tokenizer.save_pretrained(tmp_path)
    loaded = folders.load_tokenizer(tmp_path)
    for prompt in PROMPTS:
        text = loaded.apply_chat_template(turns(prompt), tokenize=False, add_generation_prompt=True)
        assert text == chat.template.render(prompt).text
        found = loaded.apply_chat_template(turns(prompt), add_generation_prompt=True)["input_ids"]
        assert found == chat.prompt_ids(prompt)


def test_an_answer_ends_with_eos_and_turns_follow_each_other():
    chat = chat_of(tokenizer_of("bytes"), "<s>{prompt} ->")
    chat.tokenizer.bos_token = "<s>"
    chat.tokenizer.chat_template = chat.chat_template
    text = chat.tokenizer.apply_chat_template(turns("a", "b", "c"), tokenize=False)
    assert text == "<s>a ->b</s>c ->"


def test_roles_that_the_study_does_not_have_are_refused():
    chat = chat_of(tokenizer_of("bytes"), "human-assistant")
    with pytest.raises(TemplateError, match="expected turns of user and assistant, found one of system"):
        chat.tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}, *turns("a")])


def test_special_tokens_in_a_users_text_are_text_in_the_study_alone():
    """The one difference: other programs take `</s>` in a prompt for the token."""
    chat = chat_of(tokenizer_of("bytes"), "human-assistant")
    eos, prompt = chat.eos, "what is </s>?"
    assert eos not in chat.prompt_ids(prompt)
    assert eos in chat.tokenizer.apply_chat_template(turns(prompt), add_generation_prompt=True)["input_ids"]


def test_a_tokenizers_own_template_stays():
    tokenizer = tokenizer_of("bytes")
    tokenizer.chat_template = "{{ messages[0].content }}"
    settings = Dialogue(template="chat", eos="</s>", max_prompt_tokens=64, max_tokens=96, eos_on_cut=False)
    assert ChatTokenizer(tokenizer, settings).chat_template is None


def test_the_templates_of_the_study_can_be_read_back_as_a_models_own(scratch_model):
    """As `template: chat` does with a folder of another study."""
    tokenizer = folders.load_tokenizer(scratch_model)
    settings = {"eos": "<|endoftext|>", "max_prompt_tokens": 64, "max_tokens": 96, "eos_on_cut": False}
    written = ChatTokenizer(tokenizer, Dialogue(template="human-assistant", **settings))
    expected = written.batch_prompt_ids(PROMPTS)
    tokenizer.chat_template = written.chat_template
    assert ChatTokenizer(tokenizer, Dialogue(template="chat", **settings)).batch_prompt_ids(PROMPTS) == expected
