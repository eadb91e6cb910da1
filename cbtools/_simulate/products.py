"""The products that can be simulated: Coinbase's steps of price and size, price level and activity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class Product:
    """A product: ``price`` is where its market starts; prices and sizes have steps of ``10**-digits``.

    ``activity`` compares its flow with BTC-USD's; ``size`` is the median size of a level.
    """

    name: str
    price: float
    price_digits: int
    size_digits: int
    activity: float
    size: float
    bids: int = 1_200
    asks: int = 1_600

    @property
    def price_ticks(self) -> int:
        """Where the market starts, in steps of the price."""
        return round(self.price * float(10**self.price_digits))


_TABLE: Final = (
    Product("BTC-USD", 87_012.34, 2, 8, 1.0, 0.02, 18_000, 27_000),
    Product("ETH-USD", 2_934.56, 2, 8, 0.50, 0.5, 6_000, 8_000),
    Product("SOL-USD", 138.42, 2, 8, 0.35, 6.0, 3_000, 4_000),
    Product("XRP-USD", 2.1834, 4, 6, 0.30, 400.0, 3_000, 4_000),
    Product("DOGE-USD", 0.15267, 5, 1, 0.22, 5_000.0, 2_000, 3_000),
    Product("ADA-USD", 0.4231, 4, 8, 0.16, 1_500.0),
    Product("LINK-USD", 12.917, 3, 2, 0.14, 40.0),
    Product("SUI-USD", 1.5243, 4, 1, 0.14, 350.0),
    Product("AVAX-USD", 13.94, 2, 8, 0.12, 40.0),
    Product("LTC-USD", 85.12, 2, 8, 0.12, 6.0),
    Product("HBAR-USD", 0.14867, 5, 1, 0.11, 4_000.0),
    Product("XLM-USD", 0.254312, 6, 8, 0.11, 2_500.0),
    Product("SHIB-USD", 0.00000852, 8, 0, 0.10, 60_000_000.0),
    Product("BCH-USD", 531.27, 2, 8, 0.10, 1.0),
    Product("PEPE-USD", 0.00000461, 8, 0, 0.10, 100_000_000.0),
    Product("UNI-USD", 6.143, 3, 6, 0.09, 90.0),
    Product("AAVE-USD", 178.35, 2, 3, 0.09, 3.0),
    Product("DOT-USD", 2.314, 3, 8, 0.09, 250.0),
    Product("NEAR-USD", 1.893, 3, 3, 0.08, 280.0),
    Product("BONK-USD", 0.00000968, 8, 0, 0.08, 50_000_000.0),
    Product("ICP-USD", 4.012, 3, 4, 0.08, 130.0),
    Product("APT-USD", 2.417, 3, 2, 0.07, 220.0),
    Product("FIL-USD", 1.653, 3, 3, 0.07, 320.0),
    Product("ATOM-USD", 2.521, 3, 2, 0.07, 210.0),
    Product("ARB-USD", 0.2134, 4, 2, 0.07, 2_500.0),
    Product("ETC-USD", 13.52, 2, 8, 0.06, 40.0),
    Product("ALGO-USD", 0.1432, 4, 0, 0.06, 3_800.0),
    Product("INJ-USD", 5.931, 3, 2, 0.06, 90.0),
    Product("OP-USD", 0.324, 3, 2, 0.06, 1_700.0),
    Product("RENDER-USD", 2.132, 3, 2, 0.06, 250.0),
    Product("SEI-USD", 0.13872, 5, 1, 0.05, 3_800.0),
    Product("TIA-USD", 0.6543, 4, 2, 0.05, 820.0),
    Product("LDO-USD", 0.671, 3, 2, 0.05, 800.0),
    Product("CRV-USD", 0.4312, 4, 2, 0.05, 1_200.0),
    Product("GRT-USD", 0.0512, 4, 2, 0.04, 10_000.0),
    Product("XTZ-USD", 0.512, 3, 2, 0.04, 1_000.0),
    Product("ETH-BTC", 0.03372, 5, 8, 0.06, 0.4),
    Product("SOL-BTC", 0.0015912, 7, 8, 0.04, 4.0),
)

PRODUCTS: Final[Mapping[str, Product]] = MappingProxyType({product.name: product for product in _TABLE})
"""Product name → product, the most active first."""
