"""Charts as trees: what a test reads from them."""

from decimal import Decimal
from xml.etree import ElementTree

from hypothesis import strategies as st

from opsmeter_site.lib.charts import Bar, Series, short_usd, stacked_bars

NAMES = ("gpt-4o", "claude", "gemini", "other")
SERIES = [Series(name, name, is_other=name == "other") for name in NAMES]
FRACTIONS = st.decimals(0, 10**7, places=12)


def plain(value):
    return f"{value:f}"


def bars_of(*parts, **each):
    return [Bar(f"{day} Nov", f"Day {day}", "all day", part, **each) for day, part in enumerate(parts, 1)]


def draw(bars, series=SERIES, **options):
    usual = {"chart_id": "spend", "title": "Spend", "axis_format": short_usd, "value_format": plain}
    return stacked_bars(series=series, bars=bars, **(usual | options))


def parse(html):
    """The chart as a tree, and it is fit for a strict content security policy."""
    root = ElementTree.fromstring(html)
    for element in root.iter():
        assert element.tag != "script"
        assert not [name for name in element.attrib if name == "style" or name.startswith("on")]
    return root


def words(element):
    return "".join(element.itertext())


def classed(root, name):
    return [element for element in root.iter() if name in element.get("class", "").split()]


def table_of(root):
    """The rows of the table behind a chart, without its heads: texts by cell."""
    (table,) = root.iter("table")
    return [[words(cell) for cell in row] for part in ("tbody", "tfoot") for row in table.find(part)]


def number(text):
    return Decimal(0) if text == "–" else Decimal(text)


def percent(element, name):
    return float(element.get(name).removesuffix("%"))
