"""Keep the tokens of a language or a domain, exactly: options, plan, run."""
