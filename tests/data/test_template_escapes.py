"""A model's chat template is foreign code for Jinja's sandbox: it reaches no Python, no file and no other template."""

import pytest
from attacks import attack

from wspin.data.rendering import Template
from wspin.errors import StudyError
from wspin.models import folders

ESCAPES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a helper": "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
    "globals of a function": "{{ lipsum.__globals__['os'].system('touch ran') }}",
    "globals of a function that transformers adds": "{{ raise_exception.__globals__.__builtins__.open('ran', 'w') }}",
    "attributes by a filter": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "attributes by item": "{{ messages['__class__'] }}{{ raise_exception['__globals__'] }}",
    "attributes in a format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "attributes in a format of a dict": "{{ '{a.__class__.__mro__}'.format_map({'a': messages}) }}",
    "attributes by a map": "{{ [messages]|map(attribute='__class__.__mro__')|list }}",
    "an included file": "{% include '/etc/passwd' %}",
    "an imported file": "{% import '/etc/passwd' as file %}{{ file }}",
    "a template to extend": "{% extends '/etc/passwd' %}",
    "a loop over 10^12 numbers": "{% for i in range(10 ** 12) %}a{% endfor %}",
    "a macro that calls itself": "{% macro a(x) %}{{ a(x) }}{% endmacro %}{{ a(1) }}",
    "its own error": "{{ raise_exception('line\n\x1b[2J of an error') }}",
    "a changed conversation": "{{ messages.append({'role': 'system'}) }}{{ messages.clear() }}",
}


@attack(
    "code",
    "a chat template that reaches for Python, files or other templates, or loops for ever (16 ways)",
    "a line that names the model, or the text without it",
)
@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_chat_templates_reach_no_python_and_no_file(scratch_model, tmp_path, monkeypatch, escape):
    monkeypatch.chdir(tmp_path)
    tokenizer = folders.load_tokenizer(scratch_model)
    tokenizer.chat_template = escape + "{{ messages[0].content }}"
    try:
        text = Template("chat", tokenizer).render("the river").text
    except StudyError as error:
        assert str(error).startswith(f"{scratch_model}: template 'chat': expected a chat template")
        assert str(error).isprintable()
    else:
        assert "class" not in text
        assert "root:" not in text
    assert not list(tmp_path.iterdir())


def test_a_prompt_is_no_template(scratch_model):
    """The text of a user is a value: what stands in it is not evaluated."""
    tokenizer = folders.load_tokenizer(scratch_model)
    tokenizer.chat_template = "{{ messages[0].content }}"
    for name in ("chat", "human-assistant"):
        text = Template(name, tokenizer).render("{{ 7 * 7 }} {% include 'a' %}").text
        assert "{{ 7 * 7 }} {% include 'a' %}" in text
