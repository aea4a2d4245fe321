"""Events, their registry, aggregates and ``@handles``. Nothing here does I/O."""
