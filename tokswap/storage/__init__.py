"""Files: atomic output folders, names that resolve to folders, GGUF, JSON, links and trust."""
