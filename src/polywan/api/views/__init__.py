"""Documents that pages, terminals and reports are drawn from."""
