"""Put another model's tokenizer on a model: options, plan, run."""
