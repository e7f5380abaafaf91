"""Reports as tests read them: the tags, text and tables of a page, and the tables of Markdown."""

import re
from html.parser import HTMLParser

from alexnet_repro.verify.report.page import write_report
from alexnet_repro.verify.report.run_record import read_results
from tests.helpers.results_files import written

FORGED = '"></p><script>document.title = "run"</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def reported(folder, content):
    """Write a report of a run, and return its page, its Markdown summary and all paths."""
    paths = write_report(read_results(written(folder, content)), folder)
    return paths[0].read_text(), paths[1].read_text(), paths


def tables(markdown):
    """Return the Markdown's tables as rows of cells."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", markdown, re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()] for block in blocks]


def page_tables(page):
    """Return the page's tables as rows of cells."""
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    rows = [re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL) for table in tables]
    return [[[Page(cell).text for cell in re.split(r"</t[hd]>", row)[:-1]] for row in table] for table in rows]
