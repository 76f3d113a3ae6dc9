"""Pages of the report as their elements."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The elements of a page: (tag, attributes, text within)."""

    VOID = ("meta", "input", "link", "img")

    def __init__(self, html):
        super().__init__()
        self.parsed, self.open = [], []
        self.feed(html)
        self.elements = [(tag, given, "".join(parts)) for tag, given, parts in self.parsed]

    def handle_starttag(self, tag, attributes):
        self.parsed.append((tag, dict(attributes), []))
        if tag not in self.VOID:
            self.open.append(self.parsed[-1])

    def handle_startendtag(self, tag, attributes):
        self.parsed.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        while self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for _, _, parts in self.open:
            parts.append(data)

    def all(self, tag, **attributes):
        found = [element for element in self.elements if element[0] == tag]
        return [[given, text] for _, given, text in found if attributes.items() <= given.items()]
