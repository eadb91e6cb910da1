"""The features: a catalogue of what is computed of books and trades, each with its definition and source."""

from cbtools.features import depth, flow, touch, volatility

BOOK = (*touch.FEATURES, *depth.FEATURES, *flow.FEATURES, *volatility.FEATURES)
