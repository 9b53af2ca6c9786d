"""Geometry of the charts."""

import numpy as np
import pytest

from pp_recorder.checks import charts


def test_values_are_mapped_into_the_plot_with_y_upwards():
    chart = charts.Chart((0, 10), (-1, 1), ("x", "y"), width=164, height=150)
    assert chart.at(0, -1) == (52, 112)
    assert chart.at(10, 1) == (152, 12)
    assert chart.at(5, 0) == (102, 62)


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (0, 8, [0, 2, 4, 6, 8]),
        (-0.65, 0.23, [-0.6, -0.4, -0.2, 0, 0.2]),
        (2, 2, [1.5, 1.75, 2, 2.25, 2.5]),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low, high, values):
    chart = charts.Chart((low, high), (0, 1), ("x", "y"))
    assert [tick.value for tick in chart.x_ticks] == values


def test_a_line_leaves_out_what_is_not_finite_and_most_points_of_long_data():
    chart = charts.Chart((0, 2), (0, 1), ("x", "y"))
    chart.add_line(np.arange(3), np.array([0, np.nan, 1]), "#000", 1.5)
    assert len(chart.lines[0].points) == 2
    chart.add_line(np.arange(1000), np.zeros(1000), "#000", 1.5)
    assert len(chart.lines[1].points) == 250


def test_curves_without_a_finite_value_have_no_chart():
    unknown = np.full(3, np.nan)
    assert charts.curves_chart("joint", np.arange(3), unknown, None) is None
    chart = charts.curves_chart("joint", np.arange(3), unknown, np.array([0, 1, 2]))
    assert chart is not None
    assert chart.title == "joint: state and action over time, from 0 to 2"


def test_regions_count_successes_with_the_largest_y_first():
    points = np.array([[0, 0], [0.1, 0], [3, 3], [3, 2.9]])
    found = charts.region_map(points, np.array([True, False, True, True]))
    assert found.columns == ["x 0.00 to 1.00", "x 1.00 to 2.00", "x 2.00 to 3.00"]
    assert [label for label, _ in found.rows] == [
        "y 2.00 to 3.00", "y 1.00 to 2.00", "y 0.00 to 1.00",
    ]  # fmt: skip
    top, middle, bottom = (regions for _, regions in found.rows)
    assert top == [(0, 0), (0, 0), (2, 2)]
    assert middle == [(0, 0)] * 3
    assert bottom == [(2, 1), (0, 0), (0, 0)]
    assert (bottom[0].percentage, bottom[0].background) == ("50%", "rgba(21,128,61,0.12)")


def test_a_histogram_of_equal_lengths_has_one_bar():
    chart = charts.histogram(np.full(4, 180.0), ("frames", "episodes"))
    assert len(chart.bars) == 1
    assert sum(1 for _ in charts.histogram(np.arange(100.0), ("", "")).bars) == 10
