"""The order book: rebuilt from its changes, carried over, and honest about gaps."""

from cbtools.book.rebuild import rebuild_book as rebuild_book
from cbtools.book.state import BookState as BookState
