"""Networks and pure functions over tensors and text: no files, no devices chosen, no state between calls."""
