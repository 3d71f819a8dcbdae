"""Text before any network sees it: normalisers, tokenizers, and which words a model knows."""
