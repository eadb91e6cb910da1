"""Frames → matplotlib Axes. Each function takes frames and returns Axes, and loads matplotlib when called."""

from cbtools.plot.candles import candles as candles
from cbtools.plot.correlations import correlations as correlations
from cbtools.plot.depth import depth as depth
from cbtools.plot.depth import ladder as ladder
from cbtools.plot.heatmap import heatmap as heatmap
from cbtools.plot.panels import imbalance as imbalance
from cbtools.plot.panels import panels as panels
from cbtools.plot.panels import spread as spread
from cbtools.plot.quotes import quotes as quotes
from cbtools.plot.quotes import trades_on_quotes as trades_on_quotes
from cbtools.plot.recording import coverage as coverage
from cbtools.plot.recording import gaps as gaps
from cbtools.plot.research import fit as fit
from cbtools.plot.research import seasonality as seasonality
