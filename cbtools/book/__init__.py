"""The order book: rebuilt from its changes, carried over, and honest about gaps."""

from cbtools.book.instant import Book as Book
from cbtools.book.instant import book_at as book_at
from cbtools.book.rebuild import rebuild_book as rebuild_book
from cbtools.book.state import BookState as BookState
