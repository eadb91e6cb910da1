"""The program: segments → dataset, with a report."""
