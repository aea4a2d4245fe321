"""What pydantic's reader of JSON takes, by its release."""

import pydantic
from packaging.version import Version

COUNTS_THE_SIGN = Version(pydantic.VERSION) < Version("2.14.2")
"""Whether the sign of an integer is one of its 4300 digits."""
