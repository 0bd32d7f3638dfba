"""Stacked bars: exact in their table, true in their proportions."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsmeter_site.lib.charts import Bar, Reference, Series, Shade, place
from tests.charts import FRACTIONS, NAMES, bars_of, classed, draw, number, parse, percent, plain, table_of, words

stacks = st.lists(st.dictionaries(st.sampled_from(NAMES), FRACTIONS), min_size=1, max_size=40)


def rectangles(root):
    """(left, top, height) of every stacked rectangle, by its series' class."""
    return {
        path.get("class"): [
            tuple(map(int, found)) for found in re.findall(r"M(\d+) (\d+)h\d+v(\d+)h-\d+z", path.get("d"))
        ]
        for path in root.iter("path")
    }


class TestStackedBars:
    @settings(max_examples=60, deadline=None)
    @given(stacks)
    def test_the_table_holds_every_value_and_adds_up(self, parts):
        *rows, foot = table_of(parse(draw(bars_of(*parts))))

        for row, part in zip(rows, parts, strict=True):
            assert [number(cell) for cell in row[1:-1]] == [part.get(name, 0) for name in NAMES]
            assert number(row[-1]) == sum(part.values())
        assert number(foot[-1]) == sum(sum(part.values()) for part in parts)
        assert [number(cell) for cell in foot[1:-1]] == [sum(part.get(name, 0) for part in parts) for name in NAMES]

    @settings(max_examples=60, deadline=None)
    @given(stacks)
    def test_heights_are_proportional_and_parts_stand_on_each_other(self, parts):
        root = parse(draw(bars_of(*parts)))
        pieces = sorted(piece for series in rectangles(root).values() for piece in series)
        totals = [sum(part.values()) for part in parts]
        heights = {}
        for left, _, height in pieces:
            heights[left // 100] = heights.get(left // 100, 0) + height

        for index, total in enumerate(totals):
            drawn = heights.get(index, 0)
            assert 0 <= drawn <= 10_000
            # Half a ten-thousandth of the plot is far below a pixel.
            assert abs(drawn * max(totals) - heights.get(totals.index(max(totals)), 0) * total) <= max(totals)
            column = sorted((top, height) for left, top, height in pieces if left // 100 == index)
            assert all(top + height == below for (top, height), (below, _) in pairwise(column))
            assert not column or sum(column[-1]) == 10_000

    @pytest.mark.parametrize(
        ("peak", "labels"),
        [
            ("0.000045", ["$0", "$0.00001", "$0.00002", "$0.00003", "$0.00004", "$0.00005"]),
            ("0.9", ["$0", "$0.20", "$0.40", "$0.60", "$0.80", "$1"]),
            ("12.1", ["$0", "$2.50", "$5", "$7.50", "$10", "$12.50"]),
            ("1", ["$0", "$1"]),
            ("100", ["$0", "$20", "$40", "$60", "$80", "$100"]),
            ("1234567", ["$0", "$250k", "$500k", "$750k", "$1M", "$1.25M"]),
            ("10000000", ["$0", "$2M", "$4M", "$6M", "$8M", "$10M"]),
        ],
    )
    def test_the_axis_has_round_values_from_zero_to_the_peak(self, peak, labels):
        (axis,) = classed(parse(draw(bars_of({"gpt-4o": Decimal(peak)}))), "chart-y")

        assert [words(label) for label in axis] == labels

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10**6))
    def test_whole_numbers_get_whole_ticks_each_with_a_label_of_its_own(self, peak):
        root = parse(draw(bars_of({"gpt-4o": peak}), axis_format=plain))
        labels = [words(label) for label in classed(root, "chart-y")[0]]

        assert len(set(labels)) == len(labels)
        assert all(Decimal(label) % 1 == 0 for label in labels)
        assert 2 <= len(labels) <= 6

    def test_ticks_are_never_so_fine_that_their_labels_repeat(self):
        root = parse(draw(bars_of({"gpt-4o": Decimal("1.2")}), axis_format=lambda value: f"{value:.0f}"))
        labels = [words(label) for label in classed(root, "chart-y")[0]]

        assert len(set(labels)) == len(labels)

    def test_floats_and_whole_numbers_are_as_good_as_decimals(self):
        (row, _foot) = table_of(parse(draw(bars_of({"gpt-4o": 0.1, "claude": 0.2, "gemini": 3}))))

        assert row == ["Day 1 all day", "0.1", "0.2", "3", "–", "3.3"]

    @pytest.mark.parametrize("count", [1, 2, 7, 24, 31, 90, 120, 121, 400])
    def test_any_number_of_bars_stays_inside_the_drawing(self, count):
        root = parse(draw(bars_of(*[{"gpt-4o": day + 1} for day in range(count)])))
        (lefts,) = ([left for left, _, _ in series] for series in rectangles(root).values())

        assert len(lefts) == count
        assert all(index * 100 <= left < (index + 1) * 100 for index, left in enumerate(lefts))
        assert next(root.iter("svg")).get("data-bars") == str(count)

    @pytest.mark.parametrize("count", [1, 7, 24, 25, 30, 90, 400])
    def test_labels_under_the_axis_leave_each_other_room_at_every_width(self, count):
        (strip,) = classed(parse(draw(bars_of(*[{"gpt-4o": 1}] * count))), "chart-x")
        for width, hidden in ((280, {"from-wide", "from-widest"}), (560, {"from-widest"}), (860, set())):
            shown = [text for text in strip if text.get("class") not in hidden]
            centred = [percent(text, "x") * width / 100 for text in shown if text.get("text-anchor") == "middle"]

            assert shown
            assert all(right - left > 6 * 6.5 for left, right in pairwise(centred))
            assert all(percent(text, "x") <= 100 for text in shown)

    def test_bars_without_a_label_get_none(self):
        bars = [Bar("Nov", "1 Nov", parts={"gpt-4o": 1}), Bar("", "2 Nov", parts={"gpt-4o": 1})]
        (strip,) = classed(parse(draw(bars)), "chart-x")

        assert [words(text) for text in strip] == ["Nov"]

    def test_the_picture_is_named_and_described_in_words(self):
        root = parse(draw(bars_of({"gpt-4o": 2}, {"gpt-4o": 5})))
        picture = next(root.iter("svg"))
        named = {element.get("id"): words(element) for element in root.iter() if element.get("id")}
        title, about = (named[name] for name in picture.get("aria-labelledby").split())

        assert picture.get("role") == "img"
        assert title == "Spend"
        assert about.startswith("2 bars, in total 7. Highest: Day 2, 5.")

    def test_without_bars_it_says_so_in_words(self):
        root = parse(draw([], empty="Nothing yet."))

        assert words(classed(root, "chart-empty")[0]) == "Nothing yet."
        assert not list(root.iter("svg"))

    def test_all_zero_keeps_the_time_axis_and_says_so(self):
        root = parse(draw(bars_of({}, {"gpt-4o": 0}), empty="No spend."))

        assert words(classed(root, "chart-over")[0]) == "No spend."
        assert rectangles(root) == {}
        assert len(classed(root, "chart-x")[0]) == 2

    def test_refused_stretches_are_shaded_where_they_lie_and_explained(self):
        shades = [Shade(0.25, 0.5, "Plan limit", "3 requests"), Shade(1, 3, "Budget"), Shade(3.5, 4, "Plan limit")]
        root = parse(draw(bars_of(*[{"gpt-4o": 1}] * 4), shades=shades))
        bands = [
            (band.get("class"), percent(band, "x"), percent(band, "width"))
            for band in root.iter("rect")
            if band.get("class", "").startswith("shade") and band.get("height") == "100%"
        ]
        legend = [words(item) for item in classed(root, "chart-legend")[0]]
        remarks = [words(row.find("th")) for row in root.find(".//tbody")]

        assert bands == [("shade-1", 6.25, 6.25), ("shade-2", 25, 50), ("shade-1", 87.5, 12.5)]
        assert legend[-2:] == ["Plan limit", "Budget"]
        assert remarks == [
            "Day 1 all day Plan limit (3 requests)",
            "Day 2 all day Budget",
            "Day 3 all day Budget",
            "Day 4 all day Plan limit",
        ]

    def test_every_pattern_that_is_used_is_there(self):
        shades = [Shade(0, 1, "Plan limit"), Shade(1, 2, "Budget")]
        html = draw(bars_of({"gpt-4o": 1}, {"gpt-4o": 2}, is_running=True), shades=shades)

        assert set(re.findall(r"url\(#([^)]+)\)", html)) == {p.get("id") for p in parse(html).iter("pattern")}

    def test_a_running_bar_is_striped_and_called_so_far(self):
        bars = [*bars_of({"gpt-4o": 4}), Bar("now", "Today", parts={"gpt-4o": 2}, is_running=True)]
        root = parse(draw(bars))
        (stripes,) = (rect for rect in root.iter("rect") if rect.get("fill") == "url(#spend-running)")

        assert (percent(stripes, "y"), percent(stripes, "height")) == (50, 50)
        assert "so far" in words(root.find(".//tbody")[1])
        assert "Still running" in words(classed(root, "chart-legend")[0])

    def test_a_reference_is_drawn_at_its_value_and_raises_the_axis(self):
        root = parse(draw(bars_of({"gpt-4o": 60}), reference=Reference(100, "Daily budget")))
        (line,) = classed(root, "chart-reference")

        assert (line.get("y1"), line.get("y2")) == ("0%", "0%")
        assert "Daily budget 100" in words(classed(root, "chart-legend")[0])

    def test_a_reference_far_above_the_bars_is_only_named(self):
        root = parse(draw(bars_of({"gpt-4o": 1}), reference=Reference(100, "Daily budget")))

        assert not classed(root, "chart-reference")
        assert "Daily budget 100, above this chart" in words(classed(root, "chart-legend")[0])

    def test_bars_and_series_lead_where_they_should(self):
        bars = [Bar("1", "Day 1", parts={"a": 1}, href="?day=1&of=x")]
        root = parse(draw(bars, series=[Series("a", "A", href="?model=a&of=x")]))

        assert [a.get("href") for a in root.iter("a")] == ["?model=a&of=x", "?day=1&of=x"]

    def test_other_is_quiet_and_colours_do_not_run_out(self):
        series = [Series(str(number), str(number)) for number in range(10)] + [Series("o", "Other", is_other=True)]
        root = parse(draw([Bar("1", "Day 1", parts={one.key: 1 for one in series})], series=series))
        swatches = [swatch.get("class").split()[1] for swatch in classed(root, "swatch")]

        assert swatches == [f"series-{number}" for number in range(1, 9)] + ["series-other"] * 3

    def test_what_cannot_be_drawn_truly_is_refused(self):
        with pytest.raises(ValueError, match="negative"):
            draw(bars_of({"gpt-4o": Decimal("-0.01")}))
        with pytest.raises(ValueError, match="unnamed"):
            draw(bars_of({"unnamed": 1}))


class TestPlace:
    def test_a_moment_lies_where_its_share_of_the_bar_is_over(self):
        edges = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 3)]

        assert place(edges[0], edges) == 0
        assert place(edges[1] + timedelta(hours=6), edges) == 1.25
        assert place(edges[2], edges) == 2

    def test_outside_of_the_axis_is_its_nearer_end(self):
        edges = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 3)]

        assert place(edges[0] - timedelta(days=9), edges) == 0
        assert place(edges[2] + timedelta(days=9), edges) == 2

    def test_a_day_of_25_hours_is_one_bar_like_any_other(self):
        zone = ZoneInfo("Europe/Berlin")
        edges = [datetime(2026, 10, day, tzinfo=zone).astimezone(UTC) for day in (24, 25, 26)]

        assert place(edges[1] + timedelta(hours=12.5), edges) == 1.5
