"""Files: atomic output folders, names of models, downloads and uploads, GGUF, JSON, links and trust."""
