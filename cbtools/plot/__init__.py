"""Frames → matplotlib Axes. Each function takes frames and returns Axes, and loads matplotlib when called."""

from cbtools.plot.bars import candles as candles
from cbtools.plot.day import seasonality as seasonality
from cbtools.plot.heat import heatmap as heatmap
from cbtools.plot.instant import depth as depth
from cbtools.plot.instant import ladder as ladder
from cbtools.plot.line import fit as fit
from cbtools.plot.matrix import correlations as correlations
from cbtools.plot.recording import coverage as coverage
from cbtools.plot.recording import gaps as gaps
from cbtools.plot.sides import imbalance as imbalance
from cbtools.plot.sides import panels as panels
from cbtools.plot.sides import spread as spread
from cbtools.plot.touch import quotes as quotes
from cbtools.plot.touch import trades_on_quotes as trades_on_quotes
