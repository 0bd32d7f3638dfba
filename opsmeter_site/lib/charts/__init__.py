"""Charts as server-rendered SVG with a table behind each. Pure: records and formatters in, safe HTML out.

Every chart is a `<figure class="chart …">` for `static/css/charts.css`; `static/js/chart.js` adds hover values, which it
reads from the table. Positions along a fluid axis are percentages, so text keeps its size at every width. There is no
style attribute and no script, as the content security policy asks.
"""

from opsmeter_site.lib.charts.bars import Bar, Reference, Series, Shade, place, stacked_bars
from opsmeter_site.lib.charts.gauge import Forecast, GaugeState, gauge
from opsmeter_site.lib.charts.rows import Effect, Estimate, dot_range, waterfall
from opsmeter_site.lib.charts.scale import Format, Number
from opsmeter_site.lib.charts.sparkline import sparkline

__all__ = [
    "Bar",
    "Effect",
    "Estimate",
    "Forecast",
    "Format",
    "GaugeState",
    "Number",
    "Reference",
    "Series",
    "Shade",
    "dot_range",
    "gauge",
    "place",
    "sparkline",
    "stacked_bars",
    "waterfall",
]
