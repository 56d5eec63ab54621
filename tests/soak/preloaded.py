"""What the process imports from which children are forked."""

from soak.child import preload

preload()
