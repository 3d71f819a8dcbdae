"""Finding, fetching, checking and reading weights; one file per foreign layout."""
