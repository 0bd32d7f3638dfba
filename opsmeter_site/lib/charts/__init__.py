"""Charts as server-rendered SVG with a table behind each. Pure: records and formatters in, safe HTML out.

A chart is a `<figure class="chart …">` that fills the width it is given; `static/css/charts.css` dresses it, and
`static/js/chart.js` shows the values of the bar under the pointer, which it reads from the table. Positions along a
fluid axis are percentages, so text keeps its size at every width. There is no style attribute and no script, as the
content security policy asks.
"""

from opsmeter_site.lib.charts.bars import stacked_bars
from opsmeter_site.lib.charts.dots import Estimate, dot_range
from opsmeter_site.lib.charts.gauge import Forecast, GaugeState, gauge
from opsmeter_site.lib.charts.scale import Format, Number, short_count, short_usd
from opsmeter_site.lib.charts.sparkline import sparkline
from opsmeter_site.lib.charts.stack import Bar, Reference, Series, Shade, place
from opsmeter_site.lib.charts.waterfall import Effect, waterfall

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
    "short_count",
    "short_usd",
    "sparkline",
    "stacked_bars",
    "waterfall",
]
