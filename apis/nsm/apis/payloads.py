"""What a wire carries: packets or frames."""

from typing import Final

IP: Final = "IP"
ETHERNET: Final = "ETHERNET"
