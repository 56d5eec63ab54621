"""Everything that a user can set, declared once. Flags, docs, tokswap.json and Python signatures derive from it."""
