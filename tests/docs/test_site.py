"""The site: links that lead to files of the repository lead to pages there; `tox -e docs` builds it as well."""

import pytest

pytest.importorskip("mkdocs", reason="needs MkDocs: tox -e docs")

from docs.hooks import for_site

ROWS = [
    ("README.md", "index.md", "[a](docs/faq.md)", "[a](faq.md)"),
    ("README.md", "index.md", "[a](docs/quickstart.md#with-a-gpu)", "[a](quickstart.md#with-a-gpu)"),
    ("README.md", "index.md", "[a](benchmarks/records/README.md)", "[a](results.md)"),
    ("README.md", "index.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
    ("README.md", "index.md", "[![b](docs/report.png)](docs/reading.md)", "[![b](report.png)](reading.md)"),
    ("README.md", "index.md", "[a](https://example.org/x#y)", "[a](https://example.org/x#y)"),
    ("README.md", "index.md", "[a](#status)", "[a](#status)"),
    ("README.md", "index.md", "see [the licence](LICENSE).", "see the licence."),
    ("README.md", "index.md", "[a](docs/gone.md)", "[a](gone.md)"),
    ("README.md", "index.md", "[a](gone.py)", "[a](gone.py)"),
    ("docs/faq.md", "faq.md", "[a](../README.md#status)", "[a](index.md#status)"),
    ("docs/method/noise.md", "method/noise.md", "[a](../gpu.md)", "[a](../gpu.md)"),
    ("docs/method/noise.md", "method/noise.md", "[a](../../benchmarks/records/README.md)", "[a](../results.md)"),
    ("docs/faq.md", "faq.md", "[a](../alexnet_repro/model.py)", "a"),
    ("docs/faq.md", "faq.md", "```text\n[a](../LICENSE)\n```", "```text\n[a](../LICENSE)\n```"),
    (
        "benchmarks/records/README.md",
        "results.md",
        "![c](documented_softmax/learning_curve.svg)",
        "![c](benchmarks/records/documented_softmax/learning_curve.svg)",
    ),
]


@pytest.mark.parametrize(
    ("source", "page", "text", "expected"), [pytest.param(*row, id=f"source={row[0]}-text={row[2]!r}") for row in ROWS]
)
def test_links_as_the_site_has_them(source, page, text, expected):
    """Links to pages and drawings lead there, to other files are text; what is nowhere stays, and fails the build."""
    assert for_site(text, source, page) == expected
