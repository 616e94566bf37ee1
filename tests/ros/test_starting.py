# SPDX-License-Identifier: Apache-2.0
"""What ROS would end the process for is refused before."""

import pytest

from labeldistill_core.errors import ConfigError
from labeldistill_ros.starting import init_ros


@pytest.mark.parametrize("domain", ["233", "-5", " 300 ", "9" * 30])
def test_a_domain_without_ports_is_refused(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    with pytest.raises(ConfigError, match="^ROS_DOMAIN_ID is .*: set it to 0 to 232$"):
        init_ros([])
