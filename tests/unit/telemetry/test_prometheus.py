"""The table of all metrics. That the page and the program have the same is tested in tests/docs/test_names.py."""

import pytest

from sidecar.telemetry.prometheus import METRICS, MetricInfo, family


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_name_fits_its_type_and_has_a_help_text(metric: MetricInfo) -> None:
    assert metric.name.endswith("_total") == (metric.type == "counter")
    assert metric.help.endswith(".")
    assert metric.read is None or metric.labels[0] == "route"


def test_no_name_is_there_twice() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_a_metric_that_is_not_in_the_table_cannot_be_shown() -> None:
    with pytest.raises(KeyError):
        family("webhook_sidecar_surprises_total", [((), 1)])
