"""Put another model's tokenizer on a model: options, inputs, plan, run."""
