"""Builds panels. A panel has a title, a description that says what to do when it looks bad, and queries.

All queries use the variables `$namespace` and `$route`. "All" is `.*`, so that they work where scraping adds no `namespace`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from grafana_foundation_sdk.builders import common as states
from grafana_foundation_sdk.builders import dashboard as make
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as model
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = model.DataSourceRef(type_val="prometheus", uid="$datasource")
TAG = "webhook-sidecar"
SELECTED = 'namespace=~"$namespace"'
SELECTED_ROUTES = f'{SELECTED}, route=~"$route"'
#: Without rejections that a retry resolves (a copy in progress, a drain), as in the alerts.
NOT_TRANSIENT = 'reason!~"replayed|draining"'

#: Requests that a route matched.
MATCHED = 'route!=""'

#: (expression, legend)
Query = tuple[str, str]


def rate(name: str, labels: str = "", *, by: str = "", function: str = "rate", over: str = "$__rate_interval") -> str:
    """The rate per second in the selected namespaces and routes, summed by some labels."""
    selected = f"{SELECTED_ROUTES}, {labels}" if labels else SELECTED_ROUTES
    return f"sum by ({by}) ({function}({name}{{{selected}}}[{over}]))".replace(" by ()", "")


def count(name: str, labels: str = "") -> str:
    """The increase within the selected time, as a whole number."""
    return f"round({rate(name, labels, function='increase', over='$__range')})"


def gauge(name: str, *, function: str = "sum", by: str = "") -> str:
    return f"{function} by ({by}) ({name}{{{SELECTED}}})".replace(" by ()", "")


def name_unmatched(expression: str) -> str:
    """Shows the empty label of requests without a route as "(no route)"."""
    return f'label_replace({expression}, "route", "(no route)", "route", "")'


def quantiles(histogram: str, shares: Sequence[float] = (0.5, 0.95, 0.99)) -> list[Query]:
    buckets = rate(f"{histogram}_bucket", by="le")
    return [(f"histogram_quantile({share:g}, {buckets})", f"p{share * 100:g}") for share in shares]


def add_queries(panel: Any, queries: Sequence[Query], *, instant: bool = False) -> Any:
    for index, (expression, legend) in enumerate(queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + index))
        panel.with_target(query.instant() if instant else query.range())
    return panel


def describe(panel: Any, title: str, about: str) -> Any:
    return panel.title(title).description(about).datasource(SOURCE)


def steps(*levels: tuple[float, str]) -> make.ThresholdsConfig:
    """Green, and another colour from each of these values up."""
    thresholds = [
        models.Threshold(value=None, color="green"),
        *(models.Threshold(value=at, color=to) for at, to in levels),
    ]
    return make.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(thresholds)


def map_values(**colours: str) -> list[models.ValueMapping]:
    """Shows numbers as words: with `map_values(OK="green", FAILED="red")` 0 is FAILED and 1 is OK."""
    names = list(reversed(colours.items()))
    options = {
        str(value): models.ValueMappingResult(text=name.replace("_", " "), color=colour)
        for value, (name, colour) in enumerate(names)
    }
    return [models.ValueMap(options=options)]


def lines(
    title: str,
    about: str,
    *queries: Query,
    unit: str = "short",
    stacked: bool = False,
    negative: bool = False,
    bad: float | None = None,
    colours: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Curves over time. `bad` is the value above which they are marked as bad; `colours` are by the name of the curve."""
    panel = describe(timeseries.Panel(), title, about).unit(unit).span(8).height(8)
    panel.legend(
        states.VizLegendOptions().display_mode(model.LegendDisplayMode.LIST).placement(model.LegendPlacement.BOTTOM)
    )
    panel.tooltip(
        states.VizTooltipOptions().mode(model.TooltipDisplayMode.MULTI).sort(model.SortOrder.DESCENDING)
    ).line_width(1).show_points(model.VisibilityMode.NEVER)
    if not negative:
        panel.min(0)
    if unit in ("reqps", "ops"):
        panel.axis_soft_max(0.1)  # otherwise the axis of an empty panel ends at 100
    for name, colour in colours.items():
        panel.override_by_name(name, [prop("color", {"mode": "fixed", "fixedColor": colour})])
    if stacked:
        panel.stacking(states.StackingConfig().mode(model.StackingMode.NORMAL)).fill_opacity(30)
    if bad is not None:
        panel.thresholds(steps((bad, "red")))
        panel.thresholds_style(states.GraphThresholdsStyleConfig().mode(model.GraphThresholdsStyleMode.DASHED))
    return add_queries(panel, queries)


def number(
    title: str,
    about: str,
    expression: str,
    *,
    unit: str = "short",
    levels: Sequence[tuple[float, str]] = (),
    mappings: Sequence[models.ValueMapping] = (),
) -> Any:
    """A single current number."""
    panel = describe(stat.Panel(), title, about).unit(unit).span(4).height(4).thresholds(steps(*levels))
    panel.color_mode(model.BigValueColorMode.VALUE).graph_mode(model.BigValueGraphMode.NONE)
    panel.reduce_options(states.ReduceDataOptions().calcs(["lastNotNull"])).mappings(list(mappings))
    return add_queries(panel, [(expression, "")], instant=True)


def rows(title: str, about: str, columns: Sequence[tuple[str, str, list[models.DynamicConfigValue]]]) -> Any:
    """A table with a row for each secret of a route. Each column has a name, an expression and properties."""
    panel = describe(table.Panel(), title, about).span(24).height(9)
    renamed = {"namespace": "Namespace", "route": "Route", "secret": "Secret"}
    for index, (name, expression, properties) in enumerate(columns):
        letter = chr(ord("A") + index)
        panel.with_target(
            prometheus.Dataquery().expr(expression).ref_id(letter).instant().format(PromQueryFormat.TABLE)
        )
        renamed[f"Value #{letter}"] = name
        panel.override_by_name(name, properties)
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    organised = {"excludeByName": {"Time": True}, "renameByName": renamed}
    return panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organised))


def prop(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val=name, value=value)


def new_dashboard(title: str, about: str) -> make.Dashboard:
    """A dashboard with the common variables, and links to the other dashboards."""
    every = models.VariableOption(text="All", value="$__all")

    def choice(name: str, label: str, query: str) -> make.QueryVariable:
        chosen = make.QueryVariable(name).label(label).query(query).datasource(SOURCE)
        chosen.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
        return chosen.multi(True).include_all(True).all_value(".*").current(every)

    dashboard = (
        make.Dashboard(f"Webhook Sidecar / {title}").uid(f"{TAG}-{title.lower()}").description(about).tags([TAG])
    )
    dashboard.readonly().time("now-6h", "now").refresh("30s").tooltip(models.DashboardCursorSync.CROSSHAIR)
    dashboard.link(
        make.DashboardLink("Webhook Sidecar")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )
    dashboard.with_variable(make.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    dashboard.with_variable(choice("namespace", "Namespace", "label_values(webhook_sidecar_build_info, namespace)"))
    routes = f"label_values(webhook_sidecar_deliveries_total{{{SELECTED}}}, route)"
    return dashboard.with_variable(choice("route", "Route", routes))


def add_panels(dashboard: make.Dashboard, panels: Sequence[Any]) -> make.Dashboard:
    """Adds numbered panels."""
    for index, panel in enumerate(panels):
        dashboard.with_panel(panel.id(1 + index))
    return dashboard
