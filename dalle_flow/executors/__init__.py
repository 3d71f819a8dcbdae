"""Models behind one verb each, stepped slot by slot."""
