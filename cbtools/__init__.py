"""cbtools: from raw recordings of Coinbase's order book to tables that can be trusted."""
