# SPDX-License-Identifier: Apache-2.0
"""The parameter services of a node, which answer every request, also one that ROS cannot read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_service import ParameterService

WhyRefused = Callable[[ParameterMessage], str]
"""Says why a parameter cannot be set; empty where ROS is to decide."""


class AnsweringParameterService(ParameterService):
    """Refuses a parameter by a sentence that says what can be set.

    rclpy answers "expected '3' got '4'", and not at all where a value is of a type that does not
    exist: its callback raises, and the client waits for ever.
    """

    def __init__(self, node: Node, why_refused: WhyRefused) -> None:
        """Offer the services; `node` is one that was made without them."""
        self._why_refused = why_refused
        super().__init__(node)

    def _set_parameters_callback(
        self, request: SetParameters.Request, response: SetParameters.Response
    ) -> SetParameters.Response:
        response.results = [self._set([parameter]) for parameter in request.parameters]
        return response

    def _set_parameters_atomically_callback(
        self, request: SetParametersAtomically.Request, response: SetParametersAtomically.Response
    ) -> SetParametersAtomically.Response:
        response.result = self._set(request.parameters)
        return response

    def _set(self, messages: Sequence[Any]) -> SetParametersResult:
        for message in messages:
            if reason := self._why_refused(message):
                return SetParametersResult(successful=False, reason=reason)
        parameters = [Parameter.from_parameter_msg(message) for message in messages]
        return self._get_node().set_parameters_atomically(parameters)
