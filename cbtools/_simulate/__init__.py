"""The rooms behind `cbtools.simulate`: products, their markets, the words of the wire, the recorder."""
