# SPDX-License-Identifier: Apache-2.0
"""Every request to set parameters is answered, and a refusal says what can be set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from rcl_interfaces.msg import Parameter, ParameterValue, SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.context import Context
from rclpy.node import Node

from labeldistill_ros.node.parameter_service import AnsweringParameterService
from labeldistill_ros.parameter_store import ParameterStore
from labeldistill_ros.parameters import Parameters


class Asked(AnsweringParameterService):
    """Asked by calls instead of over DDS."""

    def ask(self, **values: ParameterValue) -> list[SetParametersResult]:
        messages = [Parameter(name=name, value=value) for name, value in values.items()]
        request = SetParameters.Request(parameters=messages)
        return list(self._set_parameters_callback(request, SetParameters.Response()).results)

    def ask_at_once(self, **values: ParameterValue) -> SetParametersResult:
        messages = [Parameter(name=name, value=value) for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=messages)
        response = SetParametersAtomically.Response()
        return self._set_parameters_atomically_callback(request, response).result


@pytest.fixture
def node(ros_context: Context) -> Iterator[Node]:
    node = Node("detector", context=ros_context, start_parameter_services=False)
    yield node
    node.destroy_node()


@pytest.fixture
def service(node: Node) -> Asked:
    store = ParameterStore(node)
    store.declare(Parameters())
    return Asked(node, store.why_refused)


def a_float(value: float) -> ParameterValue:
    return ParameterValue(type=3, double_value=value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("score_threshold", ParameterValue(type=99), "a float, such as 0.5 or 1.0, and a type"),
        ("score_threshold", ParameterValue(type=0), "0.5 or 1.0, and nothing was"),
        ("score_threshold", ParameterValue(type=4, string_value="x" * 10**6), "and a string was"),
        ("score_threshold", ParameterValue(type=8), "0.5 or 1.0, and an array was"),
        ("score_threshold", a_float(math.nan), "nan is not from 0 to 1"),
        ("score_threshold", a_float(-1e308), "-1e+308 is not from 0 to 1"),
        ("max_boxes", ParameterValue(type=2, integer_value=0), "0 is not from 1 to 5000"),
        ("publish_markers", ParameterValue(type=2), "a bool, true or false, and an integer"),
        ("transport", ParameterValue(type=4, string_value="x"), "none of 'compressed', 'raw'"),
        ("use_sim_time", ParameterValue(type=4), "a bool, true or false, and a string"),
        ("start_type_description_service", ParameterValue(type=1), "read when the node starts"),
        ("score_treshold", a_float(0.5), "did you mean score_threshold?"),
        ("", a_float(0.5), "there is no parameter"),
        ("a\n" * 10**5, a_float(0.5), "there is no parameter a"),
    ],
)
def test_a_refusal_says_what_can_be_set(
    node: Node, service: Asked, name: str, value: Any, told: str
) -> None:
    before = node.get_parameter_or(name).value
    (result,) = service.ask(**{name: value})
    assert not result.successful
    assert told in result.reason
    assert len(result.reason) < 500
    assert not service.ask_at_once(**{"max_range": a_float(5.0), name: value}).successful
    assert node.get_parameter_or(name).value == before
    assert node.get_parameter("max_range").value == 0.0


def test_each_parameter_of_a_request_is_answered_by_itself(node: Node, service: Asked) -> None:
    results = service.ask(max_range=a_float(5.0), nobody=a_float(1.0), max_rate=a_float(3.0))
    assert [result.successful for result in results] == [True, False, True]
    assert node.get_parameter("max_range").value == 5.0
    assert node.get_parameter("max_rate").value == 3.0
    assert service.ask_at_once().successful
    assert service.ask() == []
