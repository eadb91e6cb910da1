"""Frames → matplotlib Axes. Each function takes frames and returns Axes, and loads matplotlib when called."""

from cbtools.plot.depth import depth as depth
from cbtools.plot.heatmap import heatmap as heatmap
from cbtools.plot.quotes import quotes as quotes
from cbtools.plot.quotes import trades_on_quotes as trades_on_quotes
from cbtools.plot.recording import coverage as coverage
