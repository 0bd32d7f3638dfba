"""Charts: exact in their tables, true in their proportions, and safe whatever the names are."""

import re
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from django.conf import settings as site
from hypothesis import given, settings
from hypothesis import strategies as st

from opsmeter_site.lib.charts import (
    Bar,
    Effect,
    Estimate,
    Forecast,
    GaugeState,
    Reference,
    Series,
    Shade,
    dot_range,
    gauge,
    short_count,
    short_usd,
    sparkline,
    waterfall,
)
from tests.charts import FRACTIONS, bars_of, classed, draw, parse, percent, plain, table_of, words

HOSTILE = "<script>alert(1)</script>\"'&🔥\u202e onload=x style=y " + "x" * 200


class TestSparkline:
    def test_it_runs_from_the_left_to_the_right_edge_and_up_to_the_largest_value(self):
        line = classed(parse(sparkline([1, Decimal(4), 2.0])), "sparkline-line")[0].get("d")

        assert line == "M0 75L500 0L1000 50h0"

    def test_a_missing_value_is_a_gap(self):
        line = classed(parse(sparkline([None, 1, None, 1, 1])), "sparkline-line")[0].get("d")

        assert line == "M250 0h0M750 0L1000 0h0"

    def test_zeros_lie_on_the_ground(self):
        assert classed(parse(sparkline([0, 0])), "sparkline-line")[0].get("d") == "M0 100L1000 100h0"

    def test_it_is_decoration(self):
        assert parse(sparkline([1, 2])).get("aria-hidden") == "true"

    @pytest.mark.parametrize("values", [[], [1], [None, None, 3]])
    def test_less_than_two_values_are_no_trend(self, values):
        assert sparkline(values) == ""


def meter(spent, limit, state=GaugeState.NORMAL, **options):
    return parse(
        gauge(chart_id="b", title="Budget", spent=spent, limit=limit, state=state, value_format=plain, **options)
    )


class TestGauge:
    def test_it_says_what_it_shows(self):
        root = meter(
            84, 100, GaugeState.WARNING, warn_at=80, forecast=Forecast(95, 140, "95 to 140 by midnight."), note="Soft."
        )
        (bar,) = (element for element in root.iter() if element.get("role") == "meter")

        assert bar.get("aria-valuetext") == (
            "84 of 100. Near the limit, 84% used. warning at 80. 95 to 140 by midnight. Soft"
        )
        assert (bar.get("aria-valuemin"), bar.get("aria-valuenow"), bar.get("aria-valuemax")) == ("0", "84", "140")

    @settings(max_examples=60, deadline=None)
    @given(FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS)
    def test_everything_lies_on_one_scale(self, spent, limit, low, more):
        root = meter(spent, limit, forecast=Forecast(low, low + more, "Somewhere."))
        widths = [rect for rect in root.iter("rect") if "%" in rect.get("width")]
        (mark,) = classed(root, "gauge-limit")
        drawn = sum(percent(rect, "width") for rect in classed(root, "gauge-spent"))

        assert all(percent(rect, "x") + percent(rect, "width") <= 100.01 for rect in widths)
        assert float(spent) * percent(mark, "x1") == pytest.approx(float(limit) * drawn, abs=float(spent + limit) / 100)

    def test_twice_the_limit_looks_like_it(self):
        root = meter(200, 100, GaugeState.EXCEEDED, warn_at=80)

        assert percent(classed(root, "gauge-limit")[0], "x1") == 50
        assert percent(classed(root, "gauge-warn")[0], "x1") == 40
        assert percent(classed(root, "gauge-excess")[0], "width") == 50

    def test_a_wild_forecast_does_not_shrink_the_rest_to_nothing(self):
        assert percent(classed(meter(10, 100, forecast=Forecast(50, 9_000, "?")), "gauge-limit")[0], "x1") == 50

    @pytest.mark.parametrize(
        ("state", "words_shown"),
        [
            (GaugeState.NORMAL, "Within the limit, 99% used"),
            (GaugeState.WARNING, "Near the limit, 99% used"),
            (GaugeState.EXCEEDED, "Limit reached, 99% used"),
        ],
    )
    def test_the_state_is_told_in_words(self, state, words_shown):
        root = meter(Decimal("99.999"), 100, state)

        assert words_shown in words(classed(root, "gauge-state")[0])

    def test_nothing_spent_and_nothing_allowed_can_be_drawn(self):
        meter(0, 50)
        assert "%" not in words(meter(0, 0, GaugeState.EXCEEDED))


def changed(before, effects, after):
    return parse(
        waterfall(
            chart_id="w",
            title="What changed?",
            before=("Before", before),
            effects=effects,
            after=("After", after),
            value_format=plain,
        )
    )


class TestWaterfall:
    @settings(max_examples=60, deadline=None)
    @given(FRACTIONS, st.lists(st.decimals(-(10**6), 10**6, places=12), max_size=8), FRACTIONS)
    def test_the_table_leads_exactly_from_one_total_to_the_other(self, before, amounts, after):
        effects = [Effect(f"Effect {index}", amount) for index, amount in enumerate(amounts)]
        root = changed(before, effects, after)
        if not before and not after and not amounts:
            assert classed(root, "chart-empty")
            return
        first, *steps, last = table_of(root)

        assert Decimal(first[2]) == before
        assert Decimal(last[2]) == after
        assert (
            abs(before + sum(Decimal(step[1].replace("−", "-")) for step in steps) - after)
            <= max(before, after) / 10**9
        )
        assert [step[0] for step in steps[: len(effects)]] == [effect.name for effect in effects]

    def test_bars_float_from_total_to_total(self):
        root = changed(50, [Effect("Volume", 50), Effect("Price", -25)], 75)
        bars = [(rect.get("class"), percent(rect, "x"), percent(rect, "width")) for rect in root.iter("rect")]

        assert bars == [
            ("step-total", 0, 50),
            ("step-more", 50, 50),
            ("step-less", 75, 25),
            ("step-total", 0, 75),
        ]
        assert [words(value) for value in classed(root, "row-value")] == ["50", "+50", "−25", "75"]

    def test_what_the_effects_leave_over_is_shown(self):
        root = changed(10, [Effect("Volume", 3)], 15)

        assert [words(name) for name in classed(root, "row-name")] == ["Before", "Volume", "Not explained", "After"]
        assert words(classed(root, "row-value")[2]) == "+2"

    def test_a_trillionth_lost_in_rounding_is_not_worth_a_row(self):
        root = changed(10, [Effect("Volume", Decimal("4.999999999999"))], 15)

        assert len(classed(root, "row-name")) == 3

    def test_small_steps_beside_large_totals_are_seen_and_the_cut_scale_is_told(self):
        root = changed(1_000_000, [Effect("Volume", 100)], 1_000_100)
        (step,) = classed(root, "step-more")

        assert percent(step, "width") > 20
        assert "The scale starts at 999900, not at zero." in words(root)
        assert len(classed(root, "chart-torn")) == 2

    def test_without_spend_it_says_so(self):
        assert classed(changed(0, [], 0), "chart-empty")


def compared(*estimates):
    return parse(dot_range(chart_id="d", title="Cost", estimates=estimates, axis_format=short_usd, value_format=plain))


class TestDotRange:
    def test_dots_lie_between_the_ends_of_their_whiskers_on_one_axis(self):
        root = compared(Estimate("A", 20, 10, 30, 500), Estimate("B", 40, 35, 50, 90))
        dots = [percent(dot, "cx") for dot in root.iter("circle")]
        whiskers = [(percent(line, "x1"), percent(line, "x2")) for line in classed(root, "whisker")]

        assert dots == [25, 75]
        assert whiskers == [(0, 50), (62.5, 100)]
        assert table_of(root) == [["A", "20", "10 to 30", "500"], ["B", "40", "35 to 50", "90"]]

    def test_too_few_samples_have_a_hollow_dot_and_no_whisker(self):
        root = compared(Estimate("A", 20, 10, 30, 500), Estimate("B", 40, None, None, 1, note="Too few samples."))

        assert len(classed(root, "whisker")) == 1
        assert len(classed(root, "dot-unsure")) == 1
        assert words(classed(root, "row-value")[1]) == "401 sampleToo few samples."

    def test_a_version_without_data_keeps_its_row(self):
        root = compared(Estimate("A", 20, 10, 30, 500), Estimate("B", None, None, None, 0))

        assert table_of(root)[1] == ["B", "–", "–", "0"]

    def test_one_value_alone_can_be_drawn(self):
        assert len(list(compared(Estimate("A", 20, None, None, 2)).iter("circle"))) == 1

    def test_without_any_data_it_says_so(self):
        assert classed(compared(Estimate("A", None, None, None, 0)), "chart-empty")


class TestEveryChart:
    CHARTS = (
        lambda text: draw(
            [Bar(text, text, text, {text: 1, "b": 2}, href=text, is_running=True)],
            series=[Series(text, text, href=text), Series("b", text)],
            shades=[Shade(0, 1, text, text)],
            reference=Reference(1, text),
            note=text,
            title=text,
            value_format=lambda _: text,
        ),
        lambda text: draw([], empty=text, title=text),
        lambda text: draw(bars_of({}), empty=text, title=text),
        lambda text: gauge(
            chart_id="g",
            title=text,
            spent=1,
            limit=2,
            state=GaugeState.NORMAL,
            value_format=lambda _: text,
            warn_at=1,
            forecast=Forecast(1, 2, text),
            note=text,
            href=text,
        ),
        lambda text: waterfall(
            chart_id="w",
            title=text,
            before=(text, 100),
            effects=[Effect(text, 1, text, text)],
            after=(text, 102),
            value_format=lambda _: text,
        ),
        lambda text: dot_range(
            chart_id="d",
            title=text,
            estimates=[Estimate(text, 1, 0, 2, 3, text, text)],
            axis_format=lambda value: f"{text}{value}",
            value_format=lambda _: text,
            confidence=text,
        ),
    )

    @pytest.mark.parametrize("chart", CHARTS)
    def test_hostile_words_stay_words(self, chart):
        root = parse(chart(HOSTILE))

        assert HOSTILE in words(root)

    @pytest.mark.parametrize("chart", CHARTS)
    def test_it_can_stand_beside_others_without_a_shared_id(self, chart):
        ids = [element.get("id") for element in parse(chart("x")).iter() if element.get("id")]

        assert len(ids) == len(set(ids))
        assert all(name == ids[0] or name.startswith(f"{ids[0]}-") for name in ids)

    def test_a_title_that_the_page_already_shows_stays_for_screen_readers(self):
        html = draw(bars_of({"gpt-4o": 1}), shows_title=False)

        assert parse(html).find("figcaption").get("class") == "visually-hidden"


@pytest.mark.parametrize(
    ("value", "usd", "count"),
    [
        ("0", "$0", "0"),
        ("2.5", "$2.50", "2.5"),
        ("0.000005", "$0.000005", "0.000005"),
        ("40", "$40", "40"),
        ("1250000", "$1.25M", "1.25M"),
        ("-7500", "−$7.5k", "−7.5k"),
    ],
)
def test_axis_labels_are_short_and_exact(value, usd, count):
    assert (short_usd(Decimal(value)), short_count(Decimal(value))) == (usd, count)


class TestColours:
    """The promise of charts.css: visible on the surface of cards, and neighbours apart without colour."""

    CSS = Path(site.BASE_DIR, "static", "css")

    def tokens(self, file, scheme):
        text = (self.CSS / file).read_text()
        bodies = re.findall(r":root {(.*?)}", text, re.DOTALL)
        roots = [dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", body)) for body in bodies]
        return roots[0] if scheme == "light" else roots[0] | roots[1]

    @staticmethod
    def luminance(colour):
        channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(self, one, other):
        low, high = sorted((self.luminance(one), self.luminance(other)))
        return (high + 0.05) / (low + 0.05)

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_they_stand_out_from_the_surface_and_from_their_neighbours(self, scheme):
        surface = self.tokens("base.css", scheme)["--surface"]
        tokens = self.tokens("charts.css", scheme)
        series = [tokens[f"--series-{number}"] for number in range(1, 9)]

        assert all(self.contrast(colour, surface) >= 3 for colour in [*series, tokens["--series-other"]])
        assert all(self.contrast(one, other) >= 1.5 for one, other in pairwise(series))
        assert all(self.contrast(tokens[name], surface) >= 4.5 for name in ("--step-more", "--step-less"))
